"""Records the keys that the initialisers of a model receive."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.typing import Initializer

from aslp_jax import functional
from aslp_jax._tree import Select, named_leaves
from aslp_jax.artefact import architecture, weight_recipe
from aslp_jax.masked import FROZEN, Masked
from aslp_jax.methods import ASLP


class InitArguments(NamedTuple):
    """Arguments of the initialiser of one array.

    Attributes:
      key: words of the PRNG key.
      fan_in: fan-in for biases; None for kernels.
    """

    key: tuple[int, int]
    fan_in: int | None


def init_arguments(
    model: Masked | functional.Model,
    net: Any,
    key: jax.Array,
    image_shape: tuple[int, ...],
) -> dict[str, InitArguments]:
    """Returns the arguments of the initialisers of a model that can be recorded.

    These are `weight_init`, and all initialisers of the networks of this library.

    Args:
      model: network and method.
      net: network of the model.
      key: PRNG key of `functional.init`.
      image_shape: shape of an input.

    Returns:
      Name to arguments.
    """
    known, drawn = architecture.is_known(net), model.weight_init is not None
    threefry = str(jax.random.key_impl(key)) == weight_recipe.GENERATOR
    if not threefry or not (known or drawn):
        return {}
    words, fan_ins, calls = jax.device_get(
        _record_init(
            key,
            kind=type(model),
            net=functional.network(net),
            select=model.select,
            drawn=drawn,
            image_shape=image_shape,
        )
    )
    arguments = {}
    for name, call in calls.items():
        if call < 0 and (known or model.select(name)):
            index = -int(call) - 1
            pair = (int(words[index, 0]), int(words[index, 1]))
            arguments[name] = InitArguments(pair, int(fan_ins[index]) or None)
    return arguments


@functools.partial(
    jax.jit, static_argnames=("kind", "net", "select", "drawn", "image_shape")
)
def _record_init(
    key: jax.Array,
    *,
    kind: type[Masked] | type[functional.Model],
    net: functional.Network,
    select: Select,
    drawn: bool,
    image_shape: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Initialises a network with initialisers that record their arguments.

    Each fills its array with the negative number of its call, -1 for the first. Other
    initialisers of the networks of this library give no negative numbers.

    Args:
      key: PRNG key of `functional.init`.
      kind: class of the model.
      net: network of the model.
      select: the model's selection of weights.
      drawn: True if the model has a `weight_init`.
      image_shape: shape of an input.

    Returns:
      `(words, fan_ins, calls)`: uint32 `[calls, 2]` words of the keys; int32 `[calls]`,
      0 for kernels; and one entry of each array by name.
    """
    words: list[jax.Array] = []
    fan_ins: list[int] = []

    def make_recorder(fan_in: int = 0) -> Initializer:
        def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
            words.append(jax.random.key_data(key))
            fan_ins.append(fan_in)
            return jnp.full(shape, -len(words), dtype)

        return init

    plain: Any = architecture.unwrap(net)
    if architecture.is_known(plain):
        biases = None if plain.bias_init is None else make_recorder
        plain = plain.clone(
            conv_init=make_recorder(), dense_init=make_recorder(), bias_init=biases
        )
    images = jnp.zeros((1, *image_shape), jnp.float32)
    # Any method serves that leaves the initial weights as they are.
    model = kind(plain, ASLP(), select, make_recorder() if drawn else None)
    variables = functional.init(model, key, images)
    frozen = named_leaves(variables[FROZEN])
    calls = {name: leaf.ravel()[0] for name, leaf in frozen.items() if leaf.size}
    return jnp.stack(words), jnp.array(fan_ins, jnp.int32), calls

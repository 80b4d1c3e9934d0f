"""Networks as pure functions: one small protocol, and adapters to it.

Everything below the fronts talks to `Network`: training, evaluation, files and exports
never ask which framework a network was written in.

The file is long because it holds an adapter for each framework.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.typing import Initializer

from aslp_jax._checks import check_method, single_key
from aslp_jax._frameworks import is_nnx
from aslp_jax._initialise import check_initialiser, initialise
from aslp_jax._tree import Select, kernels, stream
from aslp_jax._zeros import warn_of_zeros
from aslp_jax.masked import FROZEN, PARAMS, Masked
from aslp_jax.methods import Method
from aslp_jax.methods.aslp import ASLP

if TYPE_CHECKING:
    from flax import nnx

__all__ = [
    "NNX",
    "Collections",
    "Functions",
    "Linen",
    "Model",
    "Network",
    "init",
    "network",
    "stateless",
]

Collections: TypeAlias = Mapping[str, Any]
"""State of a network that is not trained, such as batch statistics; may be empty."""

_DEFAULT_METHOD = ASLP()

_STATE = "state"
"""Collection that holds all state of an NNX module."""

_TRAINING = ("train", "training", "is_training")
"""Names of an argument that is True while a network trains."""

_EVALUATING = ("deterministic", "inference", "use_running_average")
"""Names of an argument that is False while a network trains."""


@runtime_checkable
class Network(Protocol):
    """Plain network as two pure functions; a value that can be hashed and compared.

    Equal networks share their compiled programs.
    """

    def init(self, key: jax.Array, inputs: jax.Array) -> tuple[Any, Collections]:
        """Initialises the network.

        Args:
          key: PRNG key.
          inputs: one batch of inputs; only shape and dtype matter.

        Returns:
          Weights, a pytree of arrays, and the other collections.
        """

    def apply(
        self,
        weights: Any,
        collections: Collections,
        inputs: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Any, Collections]:
        """Runs the network.

        Args:
          weights: pytree of arrays, as from `init`.
          collections: other collections, as from `init`.
          inputs: batch of inputs, `[batch, ...]`.
          train: True while the network trains; default: False.
          key: PRNG key of dropout and other noise; None (default) for none.

        Returns:
          Outputs, and the collections after the call.
        """


@dataclasses.dataclass(frozen=True)
class Linen:
    """Network of a Flax Linen module.

    Where the module takes an argument `train`, `training`, `is_training`,
    `deterministic`, `inference` or `use_running_average`, the call sets it.

    Attributes:
      module: unbound module. Its fields may be lists, as in `nn.Sequential([...])`.
    """

    module: nn.Module

    def __hash__(self) -> int:
        try:
            return hash(self.module)
        except TypeError:  # a field is a list; equal modules have one class in any case
            return hash(type(self.module))

    def init(self, key: jax.Array, inputs: jax.Array) -> tuple[Any, Collections]:
        """Initialises the network, as `Network.init`."""
        options = _mode(self.module, train=False)
        collections = dict(self.module.init(key, inputs, **options))
        return nn.meta.unbox(collections.pop("params", {})), collections

    def apply(
        self,
        weights: Any,
        collections: Collections,
        inputs: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Any, Collections]:
        """Runs the network, as `Network.apply`."""
        variables = {"params": weights, **collections}
        options = _mode(self.module, train=train)
        if not train:
            return self.module.apply(variables, inputs, **options), collections
        # Streams that the module names otherwise follow from `params`.
        rngs = {} if key is None else {"dropout": key, "params": stream(key, "params")}
        outputs, collections = self.module.apply(
            variables, inputs, rngs=rngs, mutable=list(collections), **options
        )
        return outputs, dict(collections)


@dataclasses.dataclass(frozen=True)
class NNX:
    """Network of a Flax NNX module.

    Every `nnx.Param` is a weight. Streams of keys are set at each call, from its key.
    All other variables are the collection `state`. The module is set to training or to
    evaluation as by `train()` and `eval()`, and by an argument of the names that
    `Linen` knows.

    Attributes:
      make: function from `nnx.Rngs` to the module; two networks of one function are
        equal.
    """

    make: "Callable[[nnx.Rngs], nnx.Module]"

    def init(self, key: jax.Array, inputs: jax.Array) -> tuple[Any, Collections]:
        """Initialises the network, as `Network.init`."""
        from flax import nnx

        module = self.make(nnx.Rngs(key))
        _, weights, _, state = _split(module)
        values = _values(state)
        return _values(weights), {_STATE: values} if values else {}

    def apply(
        self,
        weights: Any,
        collections: Collections,
        inputs: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Any, Collections]:
        """Runs the network, as `Network.apply`."""
        from flax import nnx

        skeleton = nnx.eval_shape(lambda: self.make(nnx.Rngs(0)))
        graphdef, params, rngs, state = _split(skeleton)
        root = jax.random.key(0) if key is None else key
        module = nnx.merge(
            graphdef,
            _filled(params, lambda path, _: _leaf(weights, path)),
            _filled(rngs, functools.partial(_start_of_stream, root)),
            _filled(state, lambda path, _: _leaf(collections[_STATE], path)),
        )
        if train:
            module.train()
        else:
            module.eval()
        outputs = module(inputs, **_mode(module, train=train))
        if not collections or not train:
            return outputs, collections
        _, _, _, state = _split(module)
        return outputs, {_STATE: _values(state)}


@dataclasses.dataclass(frozen=True)
class Functions:
    """Network of two functions that have the signatures of `Network`.

    `stateless` makes one from two simpler functions.

    Attributes:
      init: function `(key, inputs) -> (weights, collections)`.
      apply: function `(weights, collections, inputs, *, train, key) -> (outputs,
        collections)`.
    """

    init: Callable[[jax.Array, jax.Array], tuple[Any, Collections]]
    apply: Callable[..., tuple[Any, Collections]]


def stateless(
    init: Callable[[jax.Array, jax.Array], Any],
    apply: Callable[[Any, jax.Array], Any],
) -> Functions:
    """Returns the network of two functions without state, dropout or modes.

    Args:
      init: function from PRNG key and inputs to weights, a pytree of arrays.
      apply: function from weights and inputs to outputs.

    Returns:
      The network; a second call returns a network that is equal to no other.
    """
    return Functions(
        lambda key, inputs: (init(key, inputs), {}),
        lambda weights, collections, inputs, *, train=False, key=None: (
            apply(weights, inputs),
            collections,
        ),
    )


def network(net: Any) -> Network:
    """Returns a network as pure functions.

    Args:
      net: Flax Linen module, or a `Network`: `NNX(make)`, `Functions(init, apply)`,
        `stateless(init, apply)` or any other object with its two functions. An NNX
        module stands for its own weights, which every `init` then returns.

    Raises:
      TypeError: `net` is none of these.
    """
    if isinstance(net, nn.Module):
        return Linen(net)
    if is_nnx(net):
        return NNX(_Copy(net))
    if isinstance(net, Network) and not isinstance(net, type):
        return net
    got = f"{net!r}"
    if isinstance(net, type):
        got = (
            f"the class {net.__name__}; give an instance of it, or NNX({net.__name__})"
        )
    raise TypeError(
        "functional.network: expected a Flax Linen module, an NNX module or a Network, "
        f"got {got}"
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """Network of any framework, with the method that selects its weights.

    `train`, `evaluate` and `artefact` take it as they take a Linen `Masked`.

    Attributes:
      net: network, in any form that `network` takes.
      method: method that selects the weights; default: `ASLP()`.
      select: function from the name of a weight (`"Conv_0/kernel"`) to True if it is
        masked; default: `kernels`.
      weight_init: initialiser of the masked weights, a function `(key, shape, dtype) ->
        array`; default: None, the network's own weights. The key follows from the name
        of the weight and the key of `init`.

    Raises:
      TypeError: `net` is no network, `method` is a class or no method, or `weight_init`
        is not callable.
    """

    net: Any
    method: Method = _DEFAULT_METHOD
    select: Select = kernels
    weight_init: Initializer | None = None

    def __post_init__(self) -> None:
        network(self.net)
        check_method("Model", self.method)
        check_initialiser("Model", self.weight_init)

    def init(self, key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
        """Initialises the frozen weights and the arrays that the method trains.

        Args:
          key: PRNG key.
          inputs: one batch of inputs; only shape and dtype matter.

        Returns:
          `{"frozen": ..., "params": ..., **collections}`.

        Raises:
          TypeError: `key` is no PRNG key.
          ValueError: `select` chooses no weight, or one that is not floating point; a
            collection has the name `frozen` or `params`; or `key` is an array of keys.

        Warns:
          ZeroWeightsWarning: a frozen array is all zeros, so that nothing behind it can
            be selected. Values are not seen under `jax.jit`.
        """
        key = single_key("Model.init", key)
        weights, collections = network(self.net).init(stream(key, "init"), inputs)
        taken = sorted({FROZEN, PARAMS} & set(collections))
        if taken:
            raise ValueError(f"Model: a collection cannot have the name {taken[0]!r}")
        method_key = stream(key, "method")
        if self.weight_init is not None:
            weights = initialise(
                self.weight_init, method_key, weights, select=self.select
            )
        frozen, params = self.method.init(method_key, weights, select=self.select)
        warn_of_zeros("Model", frozen, self.select)
        return {FROZEN: frozen, PARAMS: params, **collections}


def init(model: Masked | Model, key: jax.Array, inputs: jax.Array) -> dict[str, Any]:
    """Initialises a masked network of either kind.

    Args:
      model: network and method.
      key: PRNG key.
      inputs: one batch of inputs; only shape and dtype matter.

    Returns:
      `{"frozen": ..., "params": ..., **collections}`.

    Raises:
      TypeError: `key` is no PRNG key.
      ValueError: `key` is an array of keys.
    """
    key = single_key("functional.init", key)
    if isinstance(model, Masked):
        options = _mode(model.net, train=False)
        return dict(model.init(key, inputs, **options))
    return model.init(key, inputs)


@dataclasses.dataclass(frozen=True, eq=False)
class _Copy:
    """Function that copies one NNX module; equal to another of the same module."""

    module: "nnx.Module"

    def __call__(self, rngs: "nnx.Rngs") -> "nnx.Module":
        from flax import nnx

        return nnx.clone(self.module, graph=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Copy) and self.module is other.module

    def __hash__(self) -> int:
        return id(self.module)


def _mode(module: Any, *, train: bool) -> dict[str, Any]:
    """Returns the arguments that tell a module whether it trains."""
    known = inspect.signature(type(module).__call__).parameters
    names = {**dict.fromkeys(_TRAINING, train), **dict.fromkeys(_EVALUATING, not train)}
    return {name: value for name, value in names.items() if name in known}


def _split(module: "nnx.Module") -> tuple[Any, Any, Any, Any]:
    """Returns the structure, the weights, the streams of keys and all other state."""
    from flax import nnx

    parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ..., graph=True)
    return parts


def _values(state: Any) -> dict[str, Any]:
    """Returns a state as a nested dict of arrays; every entry of a path is a string."""
    from flax import nnx

    flat = {
        tuple(map(str, path)): nnx.as_pure(variable)
        for path, variable in nnx.to_flat_state(state)
    }
    return traverse_util.unflatten_dict(flat)


def _leaf(tree: Any, path: tuple[Any, ...]) -> Any:
    for entry in path:
        tree = tree[str(entry)]
    return tree


def _filled(state: Any, value: Callable[[tuple[Any, ...], Any], Any]) -> Any:
    """Returns a state whose variables hold `value(path, variable)`."""
    from flax import nnx

    return nnx.from_flat_state(
        [
            (path, variable.replace(value(path, variable)))
            for path, variable in nnx.to_flat_state(state)
        ]
    )


def _start_of_stream(root: jax.Array, path: tuple[Any, ...], variable: Any) -> Any:
    """Returns the first key of a stream, or its count."""
    from flax import nnx

    if isinstance(variable, nnx.RngKey):
        return stream(root, "/".join(map(str, path)))
    return jnp.zeros(variable.shape, variable.dtype)

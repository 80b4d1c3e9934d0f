"""Networks are traced for the arrays they have, in the order of their use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Masked, functional
from aslp_jax.artefact import ArtefactError, extract
from aslp_jax.artefact.signature import trace
from tests.artefact.networks import ABOUT, IMAGE, KAIMING, SIGNED, tiny


def init(key: jax.Array, inputs: jax.Array) -> dict[str, jax.Array]:
    return {name: jnp.ones((3, 3)) for name in ("a", "b", "c", "d")}


def apply(weights: dict[str, jax.Array], inputs: jax.Array) -> jax.Array:
    inner = jax.jit(lambda x, one, two: (x @ two) @ one)
    return inner(inner(inputs, weights["b"], weights["d"]), weights["a"], weights["b"])


@pytest.mark.parametrize("run", [apply, jax.jit(apply)], ids=["plain", "jit"])
def test_weights_are_in_the_order_of_their_use(run):
    """Within jitted functions too; a weight that nothing uses comes last."""
    found = trace(functional.stateless(init, run), (3,))
    assert found.order == ("d", "b", "a", "c")
    assert found.outputs.shape == (1, 3)


def test_an_error_of_a_network_is_one_line():
    def fail(weights: object, inputs: jax.Array) -> jax.Array:
        raise RuntimeError("first\nsecond")

    with pytest.raises(ArtefactError) as error:
        trace(functional.stateless(init, fail), (3,))
    assert str(error.value) == "takes no inputs of (3,): RuntimeError: first"


def test_more_outputs_than_one_are_refused():
    net = functional.stateless(init, lambda weights, x: (apply(weights, x), x))
    model = functional.Model(net, ASLP(), select=lambda name: name == "a")
    inputs = jnp.ones((1, *IMAGE))
    variables = model.init(jax.random.key(0), inputs)
    with pytest.raises(ArtefactError, match="more than one array"):
        extract(model, variables, ABOUT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Masked, functional.Model])
def test_weight_init_of_a_network_of_this_library_is_a_recipe(kind, key):
    """Its kernels are drawn by `weight_init`, its biases by the module."""
    model = kind(tiny(KAIMING), ASLP(logit_std=1.0), weight_init=SIGNED)
    variables = functional.init(model, key, jnp.zeros((1, *IMAGE)))
    layers = extract(model, variables, ABOUT, key=key).layers
    drawn = {name: layer.recipe.initialiser for name, layer in layers.items()}
    assert drawn["Conv_0/kernel"] == drawn["Dense_1/kernel"] == "signed_constant"
    assert drawn["Conv_0/bias"] == "fan_in_uniform"
    frozen = variables["frozen"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(layers["Conv_0/kernel"].frozen, frozen)

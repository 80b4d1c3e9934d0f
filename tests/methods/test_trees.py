"""Trees as people have them: other leaves, other containers, names with separators."""

import dataclasses
import functools
import itertools

import flax.core
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from aslp_jax import (
    ASLP,
    Budget,
    EdgePopup,
    Magnitude,
    Signed,
    Supermask,
    functional,
    optim,
)
from aslp_jax._tree import named_leaves
from tests.helpers import quick_only

METHODS = [ASLP(), Supermask(), Signed(), EdgePopup(), Budget(0.5), Magnitude(0.5)]
RULES = optim.by_group(
    {"sharpness": optim.relative_sign_sgd(0.01)}, default=optax.sgd(0.1)
)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["kernel", "rest"], meta_fields=[]
)
@dataclasses.dataclass
class Layer:
    kernel: jax.Array
    rest: object


OTHERS = {
    "function": jax.nn.relu,
    "counter": jnp.uint32(3),
    "key": jax.random.key(1),
    "none": None,
    "string": "relu",
    "flag": True,
    "mask": jnp.ones(3, bool),
    "rate": 0.5,
}


@pytest.mark.parametrize(
    ("container", "method"),
    quick_only(
        itertools.product([dict, flax.core.freeze], METHODS),
        (dict, METHODS[0]),
        (flax.core.freeze, METHODS[-1]),
    ),
)
def test_what_is_no_float_array_stays_as_it_is(method, container):
    tree = container({"a": Layer(jnp.ones((4, 3)), dict(OTHERS)), "b": jnp.ones(2)})
    frozen, params = method.init(jax.random.key(0), tree)
    trained = [leaf.dtype for leaf in jax.tree.leaves(params)]
    assert trained and all(jnp.issubdtype(dtype, jnp.floating) for dtype in trained)

    def loss(params):
        made = method.effective_weights(frozen, params, key=jax.random.key(2))
        return made["a"].kernel.sum()

    gradient = jax.grad(loss)(params)
    updates, _ = RULES.update(gradient, RULES.init(params), params)
    params = optax.apply_updates(params, updates)
    for key in (jax.random.key(2), None):
        made = method.effective_weights(frozen, params, key=key)
        assert jax.tree.structure(made) == jax.tree.structure(tree)
        for name, leaf in OTHERS.items():
            assert made["a"].rest[name] is leaf
    if isinstance(method, Magnitude):
        pruned = method.prune(frozen, params)
        assert method.effective_weights(pruned, params)["a"].rest["string"] == "relu"


def test_a_tree_of_floats_has_the_arrays_that_it_had():
    frozen, params = Magnitude(0.5).init(jax.random.key(0), {"kernel": jnp.ones(4)})
    assert sorted(frozen) == ["masks"] and sorted(params) == ["weights"]
    frozen, params = Budget(0.5).init(jax.random.key(0), {"kernel": jnp.ones(4)})
    assert sorted(frozen) == ["initial_count"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_state_of_an_nnx_module_is_selected_by_its_variables(method):
    module = nnx.Sequential(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    )
    state = nnx.state(module)
    frozen, params = method.init(jax.random.key(0), state)
    masks = method.masks(frozen, params)
    assert list(masks) == ["layers/0/kernel/value"]
    by_array, _ = method.init(
        jax.random.key(0), state, select=lambda name: name.endswith("kernel/value")
    )
    assert jax.tree.structure(by_array) == jax.tree.structure(frozen)
    made = method.effective_weights(frozen, params)
    assert jax.tree.structure(made) == jax.tree.structure(state)


def test_an_attribute_of_this_name_is_no_variable():
    @functools.partial(
        jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=[]
    )
    @dataclasses.dataclass
    class Box:
        value: jax.Array

    with pytest.raises(ValueError, match="select chooses none"):
        ASLP().init(jax.random.key(0), {"kernel": Box(jnp.ones(3))})


def test_two_leaves_of_one_name_are_refused():
    tree = {"a/kernel": jnp.ones(3), "a": {"kernel": jnp.ones(3)}}
    with pytest.raises(
        ValueError, match="two leaves of the tree have the name 'a/kern"
    ):
        named_leaves(tree)


def test_a_class_in_the_place_of_a_method_is_refused():
    net = functional.stateless(lambda key, x: {}, lambda weights, x: x)
    with pytest.raises(TypeError, match=r"Model: .* the class ASLP; write ASLP\(\)"):
        functional.Model(net, ASLP)
    with pytest.raises(TypeError, match="Model: expected a method, got 'aslp'"):
        functional.Model(net, "aslp")

"""Every public sampler and method under every transformation of JAX."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aslp_jax import ASLP, Budget, EdgePopup, Magnitude, Signed, Supermask
from aslp_jax.sampling import (
    bernoulli_st,
    gumbel_noise,
    logistic_noise,
    naive_gumbel_softmax,
    signed_stgs,
    stgs,
)
from tests.helpers import quick_only

SHAPE = (4, 6)
TWO = PartitionSpec("two")


def scaled(logits, noise, key):
    return logits * noise(key, logits.shape).astype(logits.dtype)


SAMPLERS = {
    "stgs": stgs,
    "stgs, 0.5": functools.partial(stgs, temperature=0.5),
    "bernoulli_st": bernoulli_st,
    "signed_stgs": lambda key, logits: signed_stgs(key, logits, -logits),
    "naive_gumbel_softmax": naive_gumbel_softmax,
    "logistic_noise": lambda key, logits: scaled(logits, logistic_noise, key),
    "gumbel_noise": lambda key, logits: scaled(logits, gumbel_noise, key),
}

METHODS = {
    "aslp": ASLP(logit_std=1.0, keep_fraction=0.25, temperature=0.5),
    "supermask": Supermask(logit_std=1.0),
    "edge_popup": EdgePopup(scope="global", rescale="fan"),
    "signed": Signed(logit_std=1.0, keep_fraction=0.25, scope="layer"),
    "budget": Budget(0.25),
    "magnitude": Magnitude(0.25),
}


class Case(NamedTuple):
    """Function from key and trees to arrays, with two sets of arguments."""

    run: Any
    keys: Any
    fixed: Any
    trained: Any


def weights(seed=0, dtype=np.float32):
    kernel = np.random.default_rng(seed).normal(size=SHAPE)
    return {"kernel": kernel.astype(dtype), "bias": np.ones(6, dtype)}


@functools.cache
def case(name: str) -> Case:
    keys = jax.random.split(jax.random.key(5), 2)
    if name in SAMPLERS:
        logits = np.stack([weights(i)["kernel"] for i in range(2)])
        return Case(
            lambda key, _, x: {"mask": SAMPLERS[name](key, x)}, keys, {}, logits
        )
    method = METHODS[name]

    def run(key, frozen, params):
        return {
            "sampled": method.effective_weights(frozen, params, key=key),
            "deterministic": method.effective_weights(frozen, params),
            "penalty": method.penalty(frozen, params),
        }

    init = jax.jit(method.init)
    starts = jax.device_get([init(key, weights(i)) for i, key in enumerate(keys)])
    fixed, trained = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    return Case(run, keys, fixed, trained)


CASES = [*SAMPLERS, *METHODS]
FEW = quick_only(CASES, "stgs", "aslp", "edge_popup")
"""All cases; the quick run takes a sampler, a method that samples, one that ranks."""


def at(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def total(found):
    """A number whose gradient depends on each element of the result."""
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(found))


def same(found, expected, **tolerance):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **{"rtol": 1e-5, **tolerance}),
        found,
        expected,
    )


def transformed(run, keys, fixed, trained):
    """The results, one by one, and the same by way of each transformation."""
    loss = lambda key, fixed, trained: total(run(key, fixed, trained))  # noqa: E731
    one = (keys[0], at(fixed, 0), at(trained, 0))
    alone = [run(keys[i], at(fixed, i), at(trained, i)) for i in range(2)]
    slopes = jax.grad(loss, argnums=2)(*one)
    direction = jax.tree.map(jnp.ones_like, one[2])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    along = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(slopes))
    return {
        "vmap": (jax.vmap(run)(keys, fixed, trained), stacked),
        "scan": (
            jax.lax.scan(lambda _, x: (None, run(*x)), None, (keys, fixed, trained))[1],
            stacked,
        ),
        "cond": (
            jax.lax.cond(
                jax.random.bits(keys[1]) >= 0,
                lambda: run(*one),
                lambda: jax.tree.map(jnp.zeros_like, alone[0]),
            ),
            alone[0],
        ),
        "remat": (jax.grad(jax.checkpoint(loss), argnums=2)(*one), slopes),
        "jvp": (
            jax.jvp(lambda trained: loss(*one[:2], trained), one[2:], (direction,))[1],
            along,
        ),
    }


@pytest.fixture(scope="module")
def found():
    """Results of all transformations of a case, as one program of each case."""

    @functools.cache
    def compute(name):
        run, *arguments = case(name)
        results = jax.jit(functools.partial(transformed, run))(*arguments)
        return jax.device_get(results)

    return compute


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("transform", ["vmap", "scan", "cond", "remat", "jvp"])
def test_inside_a_program(found, name, transform):
    result, expected = found(name)[transform]
    assert jax.tree.leaves(expected)
    same(result, expected, atol=1e-4)


@pytest.fixture(scope="module")
def alone():
    """The results of both sets of arguments, each computed by itself."""

    @functools.cache
    def compute(name):
        run, *arguments = case(name)
        each = [jax.jit(run)(*at(tuple(arguments), i)) for i in range(2)]
        return jax.device_get(jax.tree.map(lambda *leaves: np.stack(leaves), *each))

    return compute


@pytest.mark.parametrize("name", FEW)
def test_a_member_on_each_device(alone, name):
    run, *arguments = case(name)
    mesh = Mesh(np.array(jax.devices()[:2]), ("two",))

    def member(*own):
        return jax.tree.map(lambda leaf: leaf[None], run(*at(own, 0)))

    mapped = jax.shard_map(member, mesh=mesh, in_specs=TWO, out_specs=TWO)
    same(jax.jit(mapped)(*arguments), alone(name), atol=1e-6)
    if name in ("stgs", "signed_stgs", *METHODS):
        same(jax.pmap(run)(*arguments), alone(name), atol=1e-6)


def spread(tree, mesh):
    """The tree with the second last axis of each matrix on two devices."""

    def place(leaf):
        axes = [None] * leaf.ndim
        if leaf.ndim > 1:
            axes[-2] = "two"
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*axes)))

    return jax.tree.map(place, tree)


@pytest.mark.parametrize(
    ("name", "axis"),
    quick_only(
        [(name, AxisType.Explicit) for name in CASES]
        + [(name, AxisType.Auto) for name in ("aslp", "edge_popup")],
        ("aslp", AxisType.Explicit),
        ("edge_popup", AxisType.Auto),
    ),
)
def test_weights_on_two_devices(alone, name, axis):
    run, *arguments = case(name)
    mesh = jax.make_mesh((2,), ("two",), axis_types=(axis,), devices=jax.devices()[:2])
    key, *trees = at(tuple(arguments), 0)

    def loss(trained, fixed, key):
        result = run(key, fixed, trained)
        return total(result), result

    with jax.set_mesh(mesh):
        trees = spread(trees, mesh)
        program = jax.jit(jax.grad(loss, has_aux=True))
        slopes, result = program(trees[1], trees[0], key)
    same(result, at(alone(name), 0), atol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("name", quick_only(METHODS, "aslp"))
def test_params_start_where_explicit_weights_are(name):
    mesh = jax.make_mesh((2,), ("two",), devices=jax.devices()[:2])
    method = METHODS[name]
    with jax.set_mesh(mesh):
        placed = spread(weights(), mesh)
        inside = jax.jit(method.init)(jax.random.key(0), placed)
        outside = method.init(jax.random.key(0), placed)
    for tree in (inside, outside):
        for leaf in jax.tree.leaves(tree):
            if leaf.ndim > 1 and leaf.shape[-2:] == SHAPE:
                assert "two" in leaf.sharding.spec
    same(inside, method.init(jax.random.key(0), weights()))


@pytest.mark.parametrize("name", quick_only(SAMPLERS, "stgs"))
def test_samplers_export_with_symbolic_shapes(name):
    sizes = jax.export.symbolic_shape("b, 6")
    logits = jax.ShapeDtypeStruct(sizes, jnp.float32)
    run, keys, _, trained = case(name)
    data = jax.random.key_data(keys[0])

    def function(data, logits):
        return run(jax.random.wrap_key_data(data), {}, logits)

    exported = jax.export.export(jax.jit(function))(data, logits)
    same(exported.call(data, trained[0]), function(data, trained[0]), atol=1e-6)


SYMBOLIC = {
    "aslp": (METHODS["aslp"], ("init",)),
    "aslp, dynamic": (ASLP(logit_std=1.0, rescale="dynamic"), ()),
    "supermask": (METHODS["supermask"], ()),
    "signed": (METHODS["signed"], ("init",)),
    **{
        name: (METHODS[name], ("init", "masks"))
        for name in ("edge_popup", "budget", "magnitude")
    },
}
"""Methods, and the functions in which they count weights."""


def symbolic(tree):
    """Shapes of a tree whose matrices have a symbolic number of rows."""
    rows = jax.export.symbolic_shape("rows")

    def shape(leaf):
        sizes = leaf.shape[:-2] + rows + leaf.shape[-1:] if leaf.ndim > 1 else ()
        return jax.ShapeDtypeStruct(sizes or leaf.shape, leaf.dtype)

    return jax.tree.map(shape, tree)


@pytest.mark.parametrize("name", quick_only(SYMBOLIC, "supermask", "edge_popup"))
def test_weights_of_a_symbolic_shape_are_taken_or_refused(name):
    method, counts = SYMBOLIC[name]
    data = jax.random.key_data(jax.random.key(3))

    def start(data, tree):
        return method.init(jax.random.wrap_key_data(data), tree)

    def answers(data, frozen, params):
        key = jax.random.wrap_key_data(data)
        return {
            "sampled": method.effective_weights(frozen, params, key=key),
            "deterministic": method.effective_weights(frozen, params),
            "penalty": method.penalty(frozen, params),
            "counts": method.keep_counts(frozen, params),
        }

    given = jax.jit(start)(data, weights())
    for function, trees in ((start, [weights()]), (answers, given)):
        refused = "init" if function is start else "masks"
        export = jax.export.export(jax.jit(function))
        shapes = symbolic(list(trees))
        if refused in counts:
            words = rf"^{refused}: the shape \(rows, 6\) of 'kernel' is symbolic"
            with pytest.raises(ValueError, match=words):
                export(data, *shapes)
        else:
            found = export(data, *shapes).call(data, *trees)
            same(found, jax.jit(function)(data, *trees), atol=1e-6)


@pytest.mark.parametrize("name", quick_only(METHODS, "aslp"))
def test_networks_export_with_a_symbolic_batch(name):
    _, keys, fixed, trained = case(name)
    method, data = METHODS[name], jax.random.key_data(keys[0])
    inputs = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4"), jnp.float32)

    def network(data, trained, inputs):
        key = jax.random.wrap_key_data(data)
        return (
            inputs @ method.effective_weights(at(fixed, 0), trained, key=key)["kernel"]
        )

    exported = jax.export.export(jax.jit(network))(data, at(trained, 0), inputs)
    rows = jnp.ones((3, 4))
    found, expected = (
        call(data, at(trained, 0), rows) for call in (exported.call, jax.jit(network))
    )
    same(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", quick_only(CASES, "stgs", "aslp"))
def test_shapes_alone_leaks_and_nans(alone, name):
    run, *arguments = case(name)
    one = at(tuple(arguments), 0)
    shapes = jax.eval_shape(run, *one)
    expected = at(alone(name), 0)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, expected)

    def loss(trained):
        return total(run(*one[:2], trained))

    with jax.checking_leaks(), jax.debug_nans(True):
        jax.block_until_ready(jax.jit(jax.grad(loss))(one[2]))


@pytest.mark.parametrize("name", CASES)
def test_double_precision(name):
    run, keys, _, _ = case(name)
    with jax.enable_x64(True):
        key = keys[0]
        trees = {}, weights(dtype=np.float64)["kernel"]
        if name in METHODS:
            init = METHODS[name].init
            trees = jax.eval_shape(init, key, weights(dtype=np.float64))
        found = jax.eval_shape(run, key, *trees)
    for part in set(found) - {"penalty"}:
        for leaf in jax.tree.leaves(found[part]):
            assert leaf.dtype == jnp.float64


@pytest.mark.parametrize(
    ("name", "impl"),
    quick_only(
        [(name, "rbg") for name in CASES] + [("stgs", "unsafe_rbg")],
        ("stgs", "rbg"),
        ("aslp", "rbg"),
    ),
)
def test_keys_of_other_generators(name, impl):
    run, _, fixed, trained = case(name)
    one = at((fixed, trained), 0)
    keys = [jax.random.key(seed, impl=impl) for seed in (0, 0, 1)]
    first, again, other = (
        jax.device_get(jax.tree.leaves(jax.jit(run)(key, *one))) for key in keys
    )
    same(first, again)
    stochastic = name in SAMPLERS or METHODS[name].stochastic
    assert stochastic == any(np.any(a != b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", quick_only(SAMPLERS, "stgs"))
def test_the_checker_of_reused_keys_sees_a_sampler(name):
    run, keys, _, trained = case(name)
    with jax.debug_key_reuse(True):
        key = jax.random.clone(keys[0])
        run(key, {}, trained[0])
        with pytest.raises(jax.errors.KeyReuseError):
            run(key, {}, trained[0])

"""Masked among Flax's own transformations and habits, beside the plain module."""

import functools
from collections.abc import Callable

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Budget, EdgePopup, Magnitude, Masked, Signed
from aslp_jax.models.initialisers import kaiming_normal
from tests.helpers import quick_only

X = jnp.linspace(-1, 1, 12, dtype=jnp.float32).reshape(3, 4)
METHOD = ASLP(keep_ties=True)  # keeps every weight at the start
AXES = {"params": 0, "frozen": 0, "perturbations": 0, "intermediates": 0}
STREAMS = {"params": True, "mask": True}
OURS = ("frozen", "params")
shapes = jax.tree_util.Partial(jax.tree.map, jnp.shape)


class Net(nn.Module):
    dense: type = nn.Dense

    @nn.compact
    def __call__(self, x):
        x = self.dense(5, name="a")(x)
        self.sow("intermediates", "hidden", x)
        x = self.perturb("hidden", x)
        return self.dense(4, name="b")(nn.relu(x))


class Autoencoder(nn.Module):
    def setup(self):
        self.down = nn.Dense(2)
        self.up = nn.Dense(4)
        self.norm = nn.BatchNorm(use_running_average=False)

    def encode(self, x):
        return self.down(x)

    def decode(self, z):
        return self.norm(self.up(z))

    def __call__(self, x):
        return self.decode(jnp.tanh(self.encode(x)))


class Outer(nn.Module):
    """Module that uses a network in some way."""

    inner: nn.Module
    use: Callable

    @nn.compact
    def __call__(self, x):
        return self.use(self.inner, x)


def call(net, x):
    return net(x)


class Shared(nn.Module):
    inner: nn.Module

    def setup(self):
        nn.share_scope(self, self.inner)

    def __call__(self, x):
        return self.inner(x)


USES = {
    "alone": call,
    "remat": nn.remat(call),
    "jit": nn.jit(call),
    "scan": lambda net, x: nn.scan(
        lambda net, x, _: (net(x), None),
        variable_axes=AXES,
        split_rngs=STREAMS,
        length=2,
    )(net, x, None)[0],
    "vmap": nn.vmap(
        call, variable_axes=AXES, split_rngs=STREAMS, axis_size=3, in_axes=0
    ),
    "map_variables": nn.map_variables(
        call, ["params", "frozen"], lambda tree: tree, init=True, mutable=True
    ),
    "cond": lambda net, x: nn.cond(x.sum() > 9, call, call, net, x),
    "twice": lambda net, x: net(net(x)),
    "share_scope": lambda net, x: Shared(net)(x),
}


REMAT = Net(nn.remat(nn.Dense))


@pytest.mark.parametrize(
    ("use", "net"),
    quick_only(
        [*((use, Net()) for use in USES), ("alone", REMAT), ("scan", REMAT)],
        ("alone", Net()),
        ("scan", Net()),
    ),
)
def test_a_masked_module_is_used_as_the_plain_one(use, net):
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    plain, model = (Outer(each, USES[use]) for each in (net, Masked(net, METHOD)))
    variables = jax.jit(model.init)(rngs, X)
    shapes_of_plain = jax.eval_shape(plain.init, rngs, X)
    assert shapes(variables["frozen"]) == shapes(shapes_of_plain["params"])

    # All masks are 1 here, so the plain network on the frozen weights is the same.
    @jax.jit
    def outputs(variables):
        weights = {"params": variables["frozen"]}
        others = {name: variables[name] for name in set(variables) - set(OURS)}
        return model.apply(variables, X), plain.apply({**weights, **others}, X)

    output, expected = outputs(variables)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("use", quick_only(["remat", "scan", "vmap"], "scan"))
def test_samples_and_gradients_pass_through_lifted_transforms(use):
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}

    class Sampled(nn.Module):
        inner: nn.Module

        def __call__(self, x):
            return self.inner(x, sample=True)

    sampled = Outer(Sampled(Masked(Net(), METHOD)), USES[use])
    variables = jax.jit(sampled.init)(rngs, X)

    @jax.jit
    def gradient(params, seed):
        def loss(params):
            rngs = {"mask": jax.random.key(seed)}
            return (
                sampled.apply({**variables, "params": params}, X, rngs=rngs) ** 2
            ).sum()

        return jax.value_and_grad(loss)(params)

    value, slopes = gradient(variables["params"], 0)
    other, _ = gradient(variables["params"], 1)
    assert value != other
    assert all(
        np.any(leaf) and np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes)
    )


def both_ways(net, x):
    return net.decode(jnp.tanh(net.encode(x)))


@pytest.mark.parametrize(
    "method",
    quick_only([METHOD, Signed(), EdgePopup(), Budget(0.5), Magnitude(0.5)], METHOD),
    ids=repr,
)
def test_several_methods_at_init_make_what_one_call_makes(method):
    init = kaiming_normal()
    together, apart = (
        jax.jit(Outer(Masked(Autoencoder(), method, weight_init=init), use).init)(
            jax.random.key(0), X
        )
        for use in (call, both_ways)
    )
    assert shapes(together) == shapes(apart)

    def kernels(variables):
        group = variables["params"].get("inner", {}).get("weights")
        tree = variables["frozen"]["inner"] if group is None else group
        return tree["down"]["kernel"], tree["up"]["kernel"]

    jax.tree.map(np.testing.assert_array_equal, kernels(together), kernels(apart))
    assert not np.any(apart["batch_stats"]["inner"]["norm"]["mean"])


def test_methods_at_init_that_a_transform_keeps_apart_are_refused():
    def use(net, x):
        z = nn.jit(lambda net, x: net.encode(x))(net, x)
        return nn.jit(lambda net, z: net.decode(z))(net, z)

    with pytest.raises(ValueError, match="Masked: at init 'decode' needs weights that"):
        Outer(Masked(Autoencoder()), use).init(jax.random.key(0), X)


def test_intermediates_are_captured_as_those_of_the_plain_module():
    class Only:
        def __call__(self, module, name):
            return isinstance(module, nn.Dense)

    for option in (True, Only()):
        trees = []
        for model in (Net(), Masked(Net(), METHOD)):
            apply = functools.partial(model.apply, capture_intermediates=option)
            variables = jax.eval_shape(model.init, jax.random.key(0), X)
            _, updates = jax.eval_shape(apply, variables, X)
            trees.append(shapes(updates["intermediates"]))
        assert trees[0] == trees[1]
        assert "a" in trees[0]


def test_perturbations_get_the_gradient_of_what_they_are_added_to():
    model = Masked(Net(), METHOD)
    variables = model.init(jax.random.key(0), X)

    def loss(perturbations):
        return model.apply({**variables, "perturbations": perturbations}, X).sum()

    gradient = jax.grad(loss)(variables["perturbations"])
    assert gradient["hidden"].shape == (3, 5) and np.any(gradient["hidden"])


def test_a_table_has_the_layers_of_the_network():
    table = Masked(Net(), METHOD).tabulate(
        jax.random.key(0), X, console_kwargs={"width": 200, "force_terminal": False}
    )
    for words in ("logits", "frozen", "kernel: float32[4,5]", "a/kernel: float32[4,5]"):
        assert words in table


def test_a_network_that_is_called_unmasked_too_is_refused():
    def use(net, x):
        return Masked(net, METHOD)(net(x))

    with pytest.raises(ValueError, match="Masked: its network 'inner' has weights of"):
        Outer(nn.Dense(4), use).init(jax.random.key(0), X)


def test_a_transform_that_leaves_frozen_out_is_told_so():
    def use(net, x):
        scan = nn.scan(
            lambda net, x, _: (net(x), None),
            variable_axes={"params": 0, "perturbations": 0},
            split_rngs=STREAMS,
            length=2,
        )
        return scan(net, x, None)[0]

    model = Outer(Masked(Net(), METHOD), use)
    with pytest.raises(
        ValueError, match="'frozen' cannot be written at init; a lifted"
    ):
        model.init(jax.random.key(0), X)


def test_a_transform_that_maps_params_alone_is_told_of_frozen():
    use = nn.map_variables(call, "params", lambda tree: tree, init=True, mutable=True)
    model = Outer(Masked(Net(), METHOD), use)
    with pytest.raises(KeyError, match="no collection 'frozen'; a lifted transform"):
        model.apply(model.init(jax.random.key(0), X), X)


@pytest.mark.parametrize(
    ("method", "separator"),
    quick_only(
        [
            (METHOD, "."),
            (METHOD, "/"),
            (Signed(keep_fraction=0.5), "/"),
            (EdgePopup(), "/"),
            (Budget(0.5, sharpness_scope="layer"), "/"),
            (Magnitude(0.5), "/"),
        ],
        (METHOD, "/"),
    ),
)
def test_flat_variables_become_a_tree_again(method, separator):
    model = Masked(Net(), method)
    variables = jax.jit(model.init)(jax.random.key(0), X)
    flat = flax.traverse_util.flatten_dict(variables, sep=separator)
    again = flax.traverse_util.unflatten_dict(flat, sep=separator)

    def answers(variables):
        frozen, params = variables["frozen"], variables["params"]
        return (
            model.apply(variables, X),
            model.apply(variables, X, sample=True, rngs={"mask": jax.random.key(1)}),
            method.masks(frozen, params),
            method.scaled_masks(frozen, params),
            method.keep_counts(frozen, params),
            method.penalty(frozen, params),
            method.metrics(frozen, params),
        )

    found, expected = (jax.jit(answers)(each) for each in (again, variables))
    jax.tree.map(np.testing.assert_array_equal, found, expected)

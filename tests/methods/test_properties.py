"""What holds of every method, for values that hypothesis draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aslp_jax import ASLP, Budget, EdgePopup, Magnitude, Signed, Supermask
from tests.helpers import quick_only

MAKE = {
    "aslp": lambda keep: ASLP(keep_fraction=keep, rescale="none"),
    "aslp without a budget": lambda keep: ASLP(logit_std=1.0, rescale="none"),
    "supermask": lambda keep: Supermask(keep_fraction=keep, rescale="none"),
    "signed": lambda keep: Signed(keep_fraction=keep, rescale="none"),
    "edge_popup": lambda keep: EdgePopup(keep_fraction=keep),
    "edge_popup, global": lambda keep: EdgePopup(keep_fraction=keep, scope="global"),
    "budget": lambda keep: Budget(keep),
    "magnitude": lambda keep: Magnitude(keep),
}

SHAPES = {"matrix": (3, 4), "one": (1, 1), "scalar": (), "empty": (0, 4)}

EDGES = [0.0, -0.0, 1e-30, -1e30, np.inf, -np.inf, 3.0, -2.0]

draws = functools.partial(settings, deadline=None, derandomize=True, database=None)


def first_of(function):
    """Returns a function of one that is computed as a batch of one."""

    def run(*arguments):
        batch = jax.tree.map(lambda leaf: leaf[None], arguments)
        return jax.tree.map(lambda leaf: leaf[0], function(*batch))

    return run


TRANSFORMS = {
    "jit": lambda function: function,
    "vmap": lambda function: first_of(jax.vmap(function)),
    "scan": lambda function: first_of(
        lambda *batch: jax.lax.map(lambda each: function(*each), batch)
    ),
}


@functools.lru_cache(maxsize=32)
def program(name, keep, dtype, transform):
    """Answers of a method as one compiled program of key, weights and logits."""
    method = MAKE[name](keep)

    def weights(seed):
        rng = np.random.default_rng(seed)
        return {
            layer: {"kernel": jnp.asarray(rng.normal(size=shape) + 3, dtype)}
            for layer, shape in SHAPES.items()
        }

    def answers(key, values, seed_weights):
        frozen, params = method.init(key, seed_weights)
        group = next(iter({"logits", "scores"} & set(params)), None)
        if group is not None:  # values at the edge, in turn
            params[group] = jax.tree.map(
                lambda leaf: jnp.resize(values, leaf.shape).astype(leaf.dtype),
                params[group],
            )

        def total(params, key):
            made = method.effective_weights(frozen, params, key=key)
            parts = [
                jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(made)
            ]
            loss = sum(parts) + method.penalty(frozen, params).astype(jnp.float32)
            return loss, made

        slope = jax.grad(total, has_aux=True)
        of_sampled, sampled = slope(params, key)
        of_deterministic, deterministic = slope(params, None)
        return {
            "sampled": sampled,
            "deterministic": deterministic,
            "masks": method.masks(frozen, params),
            "counts": method.keep_counts(frozen, params),
            "probabilities": method.keep_probabilities(frozen, params),
            "penalty": method.penalty(frozen, params),
            "gradients": [of_sampled, of_deterministic],
        }

    return method, weights, jax.jit(TRANSFORMS[transform](answers))


def check_whole(seed, edges, name, keep, dtype, transform):
    """Checks a method on weights of a seed and logits at the edges."""
    method, weights, answers = program(name, keep, dtype, transform)
    frozen = weights(seed)
    values = np.asarray(edges, np.float32)
    found, again = (
        jax.device_get(answers(jax.random.key(each), values, frozen))
        for each in (seed, seed + 1)
    )
    for layer in frozen:
        name, before = f"{layer}/kernel", np.asarray(frozen[layer]["kernel"])
        mask = found["masks"][name]
        kept = np.asarray(found["deterministic"][layer]["kernel"])
        np.testing.assert_array_equal(
            kept, again["deterministic"][layer]["kernel"], "thresholded"
        )
        assert mask.dtype == bool and kept.shape == mask.shape == before.shape
        assert not np.any(kept[~mask])
        if not method.trains_dense:
            for made in (kept, found["sampled"][layer]["kernel"]):
                signs = np.asarray(made, np.float32) / np.asarray(before, np.float32)
                assert set(np.unique(signs)) <= {-1.0, 0.0, 1.0}
        probability = np.asarray(found["probabilities"][name], np.float32)
        assert ((probability >= 0) & (probability <= 1)).all()
        whole = probability if isinstance(method, Budget) else mask
        np.testing.assert_allclose(found["counts"][name], whole.sum(), rtol=1e-3)
    if isinstance(method, EdgePopup | Budget | Magnitude) and (
        getattr(method, "scope", "global") == "global"
    ):
        size = sum(mask.size for mask in found["masks"].values())
        total = sum(mask.sum() for mask in found["masks"].values())
        assert total == max(1, round(keep * size))
    for leaf in jax.tree.leaves((found["penalty"], found["gradients"])):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


WHOLE = [
    *((name, 0.3, jnp.float32) for name in MAKE),
    *((name, 1.0, jnp.bfloat16) for name in ("aslp", "signed", "edge_popup")),
]
FEW = "aslp", "signed", "edge_popup", "budget"


@pytest.mark.parametrize(
    ("name", "keep", "dtype"),
    quick_only(WHOLE, *((name, 0.3, jnp.float32) for name in FEW)),
)
def test_a_method_is_whole_at_the_edges(name, keep, dtype):
    @draws(max_examples=5)
    @given(st.integers(0, 2**31), st.permutations(EDGES))
    def check(seed, edges):
        check_whole(seed, edges, name, keep, dtype, "jit")

    check()


@pytest.mark.slow
@draws(max_examples=16)
@given(
    st.integers(0, 2**31),
    st.permutations(EDGES),
    st.sampled_from(sorted(MAKE)),
    st.integers(6, 20).map(lambda share: share / 20),
    st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
    st.sampled_from(sorted(TRANSFORMS)),
)
def test_any_method_is_whole_for_any_fraction_dtype_and_transform(
    seed, edges, name, keep, dtype, transform
):
    check_whole(seed, edges, name, keep, dtype, transform)


@pytest.mark.parametrize("name", quick_only(MAKE, *FEW))
def test_an_infinite_value_is_certain_and_gets_no_gradient(name):
    _, weights, answers = program(name, 0.3, jnp.float32, "jit")
    values = np.asarray([np.inf, -np.inf] * 4, np.float32)
    assert len(values) == len(EDGES)  # the program that is compiled already
    found = answers(jax.random.key(0), values, weights(0))
    for gradients in found["gradients"]:
        for group in {"logits", "scores"} & set(gradients):
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients[group]))


@pytest.mark.parametrize(
    "method", [Budget(0.5), Magnitude(0.5), ASLP(keep_fraction=0.5)]
)
def test_a_budget_of_no_weights_is_refused(method):
    with pytest.raises(ValueError, match=r"^init: keep_fraction of no weights: kernel"):
        method.init(jax.random.key(0), {"kernel": jnp.zeros((0, 3))})


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0])
def test_the_budget_loss_is_finite_for_weights_of_any_size(scale):
    method, weights = Budget(0.5), {"kernel": jnp.full((4, 3), scale)}
    frozen, params = method.init(jax.random.key(0), weights)
    value, slopes = jax.value_and_grad(method.penalty, argnums=1)(frozen, params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slopes)))

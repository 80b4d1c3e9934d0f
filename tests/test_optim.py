import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import aslp_jax.nnx
from aslp_jax import ASLP, Masked
from aslp_jax.optim import (
    averaged,
    by_group,
    relative_sign_sgd,
    sgd_by_group,
    with_ema,
)
from aslp_jax.train import TrainState
from tests.helpers import quick_only

RATES = {"logits": 50.0, "scale": 1e-3}


def random_tree(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "logits": {
            "Conv_0/kernel": rng.normal(size=(2, 3)).astype(np.float32),
            "Dense_0/kernel": rng.normal(size=(4,)).astype(np.float32),
        },
        "scale": {"Conv_0/kernel": np.float32(rng.normal())},
    }


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_each_group_follows_its_own_rate(momentum):
    # v = momentum v + g; p = p - rate v: no decay, no Nesterov, no dampening.
    optimiser = sgd_by_group(RATES, momentum=momentum)
    params = jax.tree.map(jnp.asarray, random_tree(0))
    state = optimiser.init(params)
    update = jax.jit(optimiser.update)

    expected = jax.tree.map(np.float64, random_tree(0))
    velocity = jax.tree.map(np.zeros_like, expected)
    for step in range(1, 4):
        gradients = random_tree(step)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradients)
        for group, rate in RATES.items():
            expected[group] = jax.tree.map(
                lambda p, v, rate=rate: p - rate * v, expected[group], velocity[group]
            )
        assert jax.tree.structure(params) == jax.tree.structure(expected)
        jax.tree.map(
            lambda p, e: np.testing.assert_allclose(p, e, rtol=1e-5, atol=1e-5),
            params,
            expected,
        )


def test_momentum_is_nine_tenths_unless_told():
    params = {"logits": jnp.zeros(())}
    optimiser = sgd_by_group({"logits": 1.0})
    state = optimiser.init(params)
    moves = []
    for _ in range(3):
        move, state = optimiser.update({"logits": jnp.ones(())}, state, params)
        moves.append(float(move["logits"]))
    np.testing.assert_allclose(moves, [-1.0, -1.9, -2.71], rtol=1e-6)


def test_a_rate_may_be_a_schedule():
    params = {"logits": jnp.zeros(()), "scale": jnp.zeros(())}
    rates = {"logits": lambda step: jnp.array([1.0, 0.5])[step], "scale": 0.5}
    optimiser = sgd_by_group(rates, momentum=0.0)
    state = optimiser.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    moves = []
    for _ in range(2):
        move, state = optimiser.update(ones, state, params)
        moves.append((float(move["logits"]), float(move["scale"])))
    np.testing.assert_allclose(moves, [(-1.0, -0.5), (-0.5, -0.5)])


def test_a_group_without_a_rate_is_named():
    optimiser = sgd_by_group({"logits": 50.0, "threshold": 1.0})
    text = r"by_group: no rule for 'scale'.*\['logits', 'threshold'\]"
    with pytest.raises(KeyError, match=text):
        optimiser.init(random_tree(0))


def test_a_rate_without_a_group_is_allowed():
    params = {"logits": {"kernel": jnp.zeros(2)}}
    optimiser = sgd_by_group(RATES)
    gradients = {"logits": {"kernel": jnp.ones(2)}}
    updates, _ = optimiser.update(gradients, optimiser.init(params), params)
    np.testing.assert_array_equal(updates["logits"]["kernel"], [-50.0, -50.0])


def moves_of_ones(optimiser, params, steps=3):
    """What each group moves in each step where every gradient is 1."""
    ones = jax.tree.map(jnp.ones_like, params)
    state, update = optimiser.init(params), jax.jit(optimiser.update)
    moves = []
    for _ in range(steps):
        move, state = update(ones, state, params)
        assert jax.tree.structure(move) == jax.tree.structure(params)
        moves.append(
            {
                group: float(jax.tree.leaves(leaves)[0].ravel()[0])
                for group, leaves in move.items()
            }
        )
    return moves


def test_groups_without_a_rule_of_their_own_follow_the_default():
    optimiser = by_group({"logits": optax.sgd(50.0)}, default=optax.sgd(0.1, 0.5))
    params = jax.tree.map(jnp.asarray, random_tree(0) | {"weights": np.zeros((2, 2))})
    moves = moves_of_ones(optimiser, params)
    assert [move["logits"] for move in moves] == [-50.0, -50.0, -50.0]
    for group in ("scale", "weights"):
        np.testing.assert_allclose(
            [move[group] for move in moves], [-0.1, -0.15, -0.175], rtol=1e-6
        )


def test_the_default_keeps_apart_what_its_groups_remember():
    # A first step that is its rate whatever the gradient's size, entry by entry.
    optimiser = by_group({}, default=optax.rmsprop(0.5, decay=0.0))
    params = {"scores": {"a": jnp.zeros(2), "b": jnp.zeros(())}, "scale": jnp.zeros(())}
    gradients = {
        "scores": {"a": jnp.asarray([1.0, -9.0]), "b": jnp.asarray(3.0)},
        "scale": jnp.asarray(-1e-2),
    }
    moves, _ = optimiser.update(gradients, optimiser.init(params), params)
    jax.tree.map(
        lambda move, slope: np.testing.assert_allclose(
            move, -0.5 * np.sign(slope), rtol=1e-4
        ),
        moves,
        gradients,
    )


def test_rules_of_several_kinds_without_a_default():
    rules = {
        "logits": optax.sgd(2.0),
        "scale": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(1.0)),
        "scores": optax.sgd(7.0),
    }
    params = {"logits": jnp.full((3,), 5.0), "scale": {"a": jnp.asarray(4.0)}}
    (move,) = moves_of_ones(by_group(rules), params, steps=1)
    assert move["logits"] == -2
    assert move["scale"] == pytest.approx(-1.4)


def test_a_group_without_a_rule_and_no_default_is_refused():
    optimiser = by_group({"scores": optax.sgd(1.0), "logits": optax.sgd(1.0)})
    text = r"by_group: no rule for 'scale'; given for \['logits', 'scores'\]"
    with pytest.raises(KeyError, match=text):
        optimiser.init({"logits": jnp.zeros(2), "scale": jnp.zeros(())})


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5, float("nan")])
def test_momentum_must_be_below_one(momentum):
    with pytest.raises(ValueError, match=f"sgd_by_group: momentum .*got {momentum}"):
        sgd_by_group(RATES, momentum=momentum)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="the rate of 'scale' must be positive"):
        sgd_by_group({"logits": 1.0, "scale": rate})


def test_a_relative_step_is_a_part_of_the_parameter_whatever_the_gradient():
    rule = relative_sign_sgd(optax.linear_schedule(0.1, 0.0, 2))
    params = {"t": jnp.float32(100.0), "u": jnp.float32(-4.0), "v": jnp.float32(2.0)}
    slopes = {"t": jnp.float32(1e-9), "u": jnp.float32(-1e9), "v": jnp.float32(0.0)}
    state = rule.init(params)
    for part in (0.1, 0.05, 0.0):
        moves, state = rule.update(slopes, state, params)
        assert float(moves["t"]) == pytest.approx(-part * float(params["t"]))
        assert float(moves["u"]) == pytest.approx(part * abs(float(params["u"])))
        assert float(moves["v"]) == 0
        params = optax.apply_updates(params, moves)
    assert float(params["t"]) == pytest.approx(100 * 0.9 * 0.95)


def test_groups_of_an_nnx_model_have_their_own_rules():
    net = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    model = aslp_jax.nnx.Masked(net, ASLP(rescale="smart"), rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    rules = {"logits": optax.sgd(2.0), "scale": optax.sgd(3.0)}
    optimiser = by_group(rules)
    ones = jax.tree.map(jnp.ones_like, state)
    updates, _ = optimiser.update(ones, optimiser.init(state), state)
    found = {
        path[1].key: float(jnp.mean(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert found == {"logits": -2.0, "scale": -3.0}
    with pytest.raises(KeyError, match="no rule for 'scale'; given for"):
        by_group({"logits": optax.sgd(1.0)}).init(state)


@pytest.mark.parametrize("container", quick_only([dict, flax.core.freeze], dict))
def test_groups_are_found_below_layers_of_a_module(container):
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(use_bias=False)(Masked(nn.Dense(3), ASLP())(x))
            return Masked(nn.Dense(2), ASLP())(x)

    variables = jax.jit(Mixed().init)(jax.random.key(0), jnp.ones((1, 4)))
    params = container(variables["params"])
    rules = {"logits": optax.sgd(2.0), "scale": optax.sgd(3.0)}
    optimiser = by_group(rules, default=optax.sgd(5.0))
    ones = jax.tree.map(jnp.ones_like, params)
    moves, _ = optimiser.update(ones, optimiser.init(params), params)
    for layer in ("Masked_0", "Masked_1"):
        assert np.all(moves[layer]["logits"]["kernel"] == -2)
        assert moves[layer]["scale"]["kernel"] == -3
    # The scale of a plain normalisation is an array, not a group of arrays.
    assert np.all(moves["LayerNorm_0"]["scale"] == -5)
    with pytest.raises(KeyError, match=r"no rule for 'LayerNorm_0'.*default= takes"):
        by_group(rules).init(params)


def test_moving_averages_follow_the_params_and_leave_the_steps_alone():
    plain = sgd_by_group(RATES, momentum=0.5)
    optimiser = with_ema(plain, 0.9)
    params = jax.tree.map(jnp.asarray, random_tree(0))
    state, alone = optimiser.init(params), plain.init(params)
    mean = jax.tree.map(np.float64, random_tree(0))
    for step in range(1, 4):
        gradients = random_tree(step)
        expected, alone = plain.update(gradients, alone, params)
        updates, state = jax.jit(optimiser.update)(gradients, state, params)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)
        params = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, p: 0.9 * m + 0.1 * np.float64(p), mean, params)
    whole = TrainState(jnp.asarray(3), {}, params, {}, state)
    jax.tree.map(
        lambda found, each: np.testing.assert_allclose(found, each, rtol=1e-5),
        averaged(whole).params,
        mean,
    )
    assert averaged(whole).opt_state is state


def test_averages_of_no_decay_are_the_params():
    params = {"logits": jnp.array([jnp.inf, 1.0])}
    optimiser = with_ema(optax.sgd(1.0), 0.0)
    _, state = optimiser.update({"logits": jnp.ones(2)}, optimiser.init(params), params)
    np.testing.assert_array_equal(state.mean["logits"], [np.inf, 0.0])


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_the_decay_of_averages_is_below_one(decay):
    with pytest.raises(ValueError, match=r"with_ema: decay must be in \[0, 1\)"):
        with_ema(optax.sgd(1.0), decay)


def test_averages_that_nobody_keeps_are_refused():
    params = {"logits": jnp.zeros(2)}
    optimiser = optax.sgd(1.0)
    state = TrainState(jnp.asarray(0), {}, params, {}, optimiser.init(params))
    with pytest.raises(TypeError, match=r"keeps no averages; make it with optim\.with"):
        averaged(state)
    kept = with_ema(optimiser, 0.5)
    with pytest.raises(ValueError, match="update needs the params"):
        kept.update(params, kept.init(params))

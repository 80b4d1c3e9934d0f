import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aslp_jax.optim import sgd_by_group

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
    text = r"sgd_by_group: no learning rate for 'scale'.*\['logits', 'threshold'\]"
    with pytest.raises(KeyError, match=text):
        optimiser.init(random_tree(0))


def test_a_rate_without_a_group_is_allowed():
    params = {"logits": {"kernel": jnp.zeros(2)}}
    optimiser = sgd_by_group(RATES)
    gradients = {"logits": {"kernel": jnp.ones(2)}}
    updates, _ = optimiser.update(gradients, optimiser.init(params), params)
    np.testing.assert_array_equal(updates["logits"]["kernel"], [-50.0, -50.0])


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5, float("nan")])
def test_momentum_must_be_below_one(momentum):
    with pytest.raises(ValueError, match=f"sgd_by_group: momentum .*got {momentum}"):
        sgd_by_group(RATES, momentum=momentum)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(ValueError, match="the rate of 'scale' must be positive"):
        sgd_by_group({"logits": 1.0, "scale": rate})

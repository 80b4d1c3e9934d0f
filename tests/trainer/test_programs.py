"""Learning rates and temperature of a run, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.trainer import programs
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.spec import Images, program_spec

IMAGES = Images((8, 8, 1), 10, None, None, False)
STEPS = 4  # of an epoch


def specification(**options):
    config = Config(dataset="digits", epochs=3, **options)
    return program_spec(
        config, IMAGES, steps=STEPS, platform="cpu", micro_batch=32, mesh=None
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 12 * [1.0]),
        ({"schedule": "cosine"}, (1 + np.cos(np.pi * np.arange(12) / 12)) / 2),
        ({"warmup_epochs": 1}, [0, 0.25, 0.5, 0.75, *8 * [1.0]]),
        (
            {"warmup_epochs": 1, "schedule": "cosine"},
            [0, 0.25, 0.5, 0.75, *(1 + np.cos(np.pi * np.arange(8) / 8)) / 2],
        ),
    ],
)
def test_learning_rates_rise_and_fall_as_the_options_say(options, expected):
    chosen = {"mask_lr": 8.0, "scale_lr": 0.5, "momentum": 0.0, **options}
    optimiser = programs._optimiser(specification(**chosen))
    params = {"logits": jnp.zeros(()), "scale": jnp.zeros(())}
    ones = {"logits": jnp.ones(()), "scale": jnp.ones(())}
    state, moves = optimiser.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # schedules of optax are not strict
        for _ in range(3 * STEPS):
            move, state = optimiser.update(ones, state, params)
            moves.append((-float(move["logits"]), -float(move["scale"])))
    rates = np.outer(expected, [8.0, 0.5])
    np.testing.assert_allclose(moves, rates, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start", "end"), [(2.0, 0.125), (0.5, 4.0), (1e30, 1e-30)])
def test_the_temperature_changes_by_the_same_factor_in_each_step(start, end):
    found = programs._temperature(specification(temperature=start, temperature_end=end))
    assert found is not None
    values = [found(jnp.asarray(step)) for step in range(3 * STEPS + 1)]
    np.testing.assert_allclose(values, np.geomspace(start, end, 13), rtol=1e-4)
    assert programs._temperature(specification(temperature=start)) is None

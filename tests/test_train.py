"""The step and the epoch: what learns, what stays, on one device and on several."""

import functools
import itertools
import operator

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aslp_jax import ASLP, Masked, Supermask, train
from aslp_jax._tree import kernels, map_named, named_leaves, split_by_name
from aslp_jax.data import augment
from aslp_jax.models import ConvNet
from aslp_jax.optim import sgd_by_group

NET = ConvNet(stages=(4,), classes=3, hidden=(8,))
DENSE = ConvNet(stages=(), classes=3, hidden=(8,))  # compiles in half the time
OPTIMISER = sgd_by_group({"logits": 5.0, "scale": 1e-2})
BATCH = 16


def integer(number):
    return jnp.asarray(number, jnp.int32)


@functools.cache
def creation(model, optimiser):
    """Function that makes a state, traced once for all tests of a model."""
    image = jnp.zeros((1, 8, 8, 1), jnp.float32)
    return jax.jit(lambda key: train.create(model, optimiser, key, image))


def problem(key, net=NET, method=None, optimiser=OPTIMISER, examples=64):
    """A state, data of three separable classes, and the options of a step."""
    model = Masked(net, method or ASLP())
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, examples).astype(np.int32)
    images = rng.integers(0, 90, (examples, 8, 8, 1)).astype(np.uint8)
    for index, label in enumerate(labels):
        images[index, 2 * label : 2 * label + 2] += 150
    state = creation(model, optimiser)(key)
    options = {"model": model, "optimiser": optimiser}
    return state, jnp.asarray(images), jnp.asarray(labels), options


def change(after, before):
    """Differences of two trees, on the host."""
    return jax.tree.map(operator.sub, *jax.device_get((after, before)))


@functools.cache
def one_step(**options):
    """The step with these options, traced once for all tests that take it."""
    return jax.jit(functools.partial(train.step, **options))


def whole_batch(images, labels):
    return augment.to_float(images[:BATCH]), labels[:BATCH]


def test_streams_are_independent_and_named(key):
    first, again, other = (train.stream(key, name) for name in ("a", "a", "b"))
    data = jax.random.key_data
    np.testing.assert_array_equal(data(first), data(again))
    assert np.any(data(first) != data(other))


def test_a_state_gives_the_variables_of_its_model(key):
    state, images, labels, options = problem(key, net=BatchNormNet())
    inputs, _ = whole_batch(images, labels)
    assert sorted(state.variables) == ["batch_stats", "frozen", "params"]
    outputs = jax.eval_shape(options["model"].apply, state.variables, inputs)
    assert outputs.shape == (BATCH, 3)


def test_a_state_trains_logits_and_scales_alone(key):
    state, *_ = problem(key)
    assert sorted(state.params) == ["logits", "scale"]
    weights = sum(leaf.size for leaf in named_leaves(state.frozen, kernels).values())
    params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    momentum = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))
    assert params == weights + 4
    assert momentum == params, "the optimiser holds nothing for a frozen weight"


def test_a_step_follows_the_gradient_of_the_sampled_network(key):
    state, images, labels, options = problem(key, net=DENSE)
    inputs, truth = whole_batch(images, labels)

    def loss(params):
        weights = ASLP().effective_weights(
            state.frozen, params, key=train.stream(key, "mask")
        )
        logits = DENSE.apply({"params": weights}, inputs)
        return -jnp.mean(
            jnp.take_along_axis(jax.nn.log_softmax(logits), truth[:, None], 1)
        )

    value, gradient = jax.jit(jax.value_and_grad(loss))(state.params)
    after, reported, correct = one_step(**options)(state, inputs, truth, key)
    np.testing.assert_allclose(reported, value, rtol=1e-5)
    assert 0 <= int(correct) <= BATCH
    assert int(after.step) == 1
    for group, rate in (("logits", 5.0), ("scale", 1e-2)):
        expected = jax.tree.map(
            lambda leaf, slope, rate=rate: leaf - np.float32(rate) * slope,
            *jax.device_get((state.params[group], gradient[group])),
        )
        chex.assert_trees_all_close(after.params[group], expected, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_equal(after.frozen, state.frozen)


def test_smoothed_labels_share_their_surplus_among_all_classes(key):
    state, images, labels, options = problem(key, net=DENSE)
    batch = whole_batch(images, labels)
    value, slope = {}, {}
    for smoothing in (0.0, 0.3):
        step = one_step(label_smoothing=smoothing, **options)
        after, value[smoothing], _ = step(state, *batch, key)
        slope[smoothing] = change(state.params, after.params)
    drawn = train.stream(key, "mask")
    weights = ASLP().effective_weights(state.frozen, state.params, key=drawn)

    def loss(weights):
        log_p = jax.nn.log_softmax(DENSE.apply({"params": weights}, batch[0]))
        wanted = np.full((BATCH, 3), 0.1, np.float32)
        wanted[np.arange(BATCH), batch[1]] += 0.7
        return -jnp.mean(jnp.sum(wanted * log_p, -1))

    np.testing.assert_allclose(value[0.3], loss(weights), rtol=1e-5)
    assert abs(value[0.3] - value[0.0]) > 1e-3
    assert any(
        np.abs(leaf).max() > 1e-6
        for leaf in jax.tree.leaves(change(slope[0.3], slope[0.0]))
    )


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_labels_cannot_be_smoothed_away(key, smoothing):
    state, images, labels, options = problem(key, net=DENSE)
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\)"):
        train.step(
            state,
            *whole_batch(images, labels),
            key,
            label_smoothing=smoothing,
            **options,
        )


def test_the_temperature_of_a_step_may_follow_a_schedule(key):
    state, images, labels, options = problem(key, net=DENSE)
    batch = whole_batch(images, labels)
    for taken, temperature in ((0, 2.0), (3, 0.25)):
        now = state.replace(step=integer(taken))
        fixed = {**options, "model": Masked(DENSE, ASLP(temperature=temperature))}
        scheduled = {
            **options,
            "temperature": lambda step: jnp.where(step == 0, 2.0, 0.25),
        }
        expected, loss, _ = one_step(**fixed)(now, *batch, key)
        found, same, _ = jax.jit(functools.partial(train.step, **scheduled))(
            now, *batch, key
        )
        assert same == loss
        chex.assert_trees_all_close(found.params, expected.params, rtol=1e-6)
        plain, *_ = one_step(**options)(now, *batch, key)
        moved = change(found.params["logits"], plain.params["logits"])
        assert any(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(moved))


def test_a_method_without_a_temperature_takes_no_schedule(key):
    state, images, labels, options = problem(key, net=DENSE, method=Supermask())
    with pytest.raises(TypeError, match=r"^train\.step: Supermask has no temperature"):
        train.step(
            state,
            *whole_batch(images, labels),
            key,
            temperature=lambda step: 1.0,
            **options,
        )


@pytest.mark.slow
def test_gradients_agree_with_finite_differences_of_the_scale(key):
    state, images, labels, _ = problem(key, net=DENSE)
    inputs, truth = whole_batch(images, labels)

    def loss(scale):
        params = {
            **state.params,
            "scale": {**state.params["scale"], "Dense_0/kernel": scale},
        }
        weights = ASLP().effective_weights(state.frozen, params, key=key)
        logits = DENSE.apply({"params": weights}, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()

    run, step = jax.jit(jax.value_and_grad(loss)), 1e-2
    above, _, below = (run(np.float32(1 + shift))[0] for shift in (step, 0, -step))
    numeric = (above - below) / (2 * step)
    np.testing.assert_allclose(run(np.float32(1))[1], numeric, rtol=2e-2)


@pytest.mark.slow
def test_micro_batches_give_the_gradient_of_the_whole(key):
    # Of one image; of eight, on several devices, below.
    state, images, labels, options = problem(key, net=DENSE)
    inputs, truth = whole_batch(images, labels)
    batch = (state, inputs, truth, key)
    whole, whole_loss, whole_correct = one_step(**options)(*batch)
    parts, loss, correct = one_step(micro_batch=1, **options)(*batch)
    chex.assert_trees_all_close(parts.params, whole.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, whole_loss, rtol=1e-5)
    assert int(correct) == int(whole_correct)


def test_a_micro_batch_larger_than_the_batch_is_the_whole(key):
    state, images, labels, options = problem(key, net=DENSE)
    whole, large = (
        jax.make_jaxpr(functools.partial(train.step, micro_batch=each, **options))(
            state, *whole_batch(images, labels), key
        )
        for each in (None, 64)
    )
    assert str(large) == str(whole)


def test_a_micro_batch_that_does_not_divide_is_refused(key):
    state, images, labels, options = problem(key)
    with pytest.raises(
        ValueError, match="micro_batch 5 does not divide the batch of 16"
    ):
        jax.eval_shape(
            functools.partial(train.step, micro_batch=5, **options),
            state,
            *whole_batch(images, labels),
            key,
        )


def mesh(count, axis=train.BATCH):
    return jax.make_mesh(
        (count,),
        (axis,),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:count],
    )


# Without micro-batches: under jit an epoch below does, and pmap's part is shard_map's.
@pytest.mark.slow
@pytest.mark.parametrize(
    "front, micro_batch",
    [("jit", 8), ("shard_map", None), ("shard_map", 8), ("pmap", 8)],
)
def test_one_and_four_devices_agree(key, front, micro_batch):
    state, images, labels, options = problem(key, net=DENSE)
    inputs, truth = whole_batch(images, labels)
    expected, expected_loss, expected_correct = one_step(**options)(
        state, inputs, truth, key
    )

    batch = PartitionSpec(train.BATCH)
    if front == "jit":
        spread = NamedSharding(mesh(4), batch)
        run = one_step(micro_batch=micro_batch, **options)
        everywhere = NamedSharding(mesh(4), PartitionSpec())
        arguments = (
            jax.device_put(state, everywhere),
            jax.device_put(inputs, spread),
            jax.device_put(truth, spread),
            jax.device_put(key, everywhere),
        )
    else:
        # Each device has four images.
        part = functools.partial(
            train.step,
            axis_name=train.BATCH,
            micro_batch=micro_batch and 2,
            **options,
        )
        if front == "shard_map":
            alike = PartitionSpec()
            run = jax.jit(
                jax.shard_map(
                    part,
                    mesh=mesh(4),
                    in_specs=(alike, batch, batch, alike),
                    out_specs=alike,
                )
            )
            arguments = (state, inputs, truth, key)
        else:
            run = jax.pmap(
                part,
                axis_name=train.BATCH,
                in_axes=(None, 0, 0, None),
                out_axes=None,
            )
            parts = inputs.reshape(4, 4, 8, 8, 1), truth.reshape(4, 4)
            arguments = (state, *parts, key)
    after, loss, correct = run(*arguments)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert int(correct) == int(expected_correct)
    moved, wanted = (change(each.params, state.params) for each in (after, expected))
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted)) > 1e-3
    chex.assert_trees_all_close(moved, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_and_four_devices_draw_the_same_masks(key):
    state, *_ = problem(key)
    draw = jax.jit(ASLP().effective_weights)
    one = draw(state.frozen, state.params, key=key)
    everywhere = NamedSharding(mesh(4), PartitionSpec())
    four = draw(
        *jax.device_put((state.frozen, state.params), everywhere),
        key=jax.device_put(key, everywhere),
    )
    chex.assert_trees_all_equal(jax.device_get(one), jax.device_get(four))


@functools.cache
def compiled(**options):
    """The epoch with these options, traced once for all tests that run it."""
    return train.compile_steps(
        batch_size=BATCH,
        prepare=lambda key, images: augment.to_float(
            augment.crop_and_flip(key, images, pad=1)
        ),
        **options,
    )


copied = jax.jit(functools.partial(jax.tree.map, jnp.copy))


def run_steps(run, state, images, labels, key, bounds, epoch=0):
    state = copied(state)  # what is given is donated
    totals = train.Totals.zeros()
    if len(images.devices()) > 1:
        totals = jax.device_put(totals, images.sharding)
    for start, stop in itertools.pairwise(bounds):
        state, totals = run(
            state,
            totals,
            images,
            labels,
            key,
            integer(epoch),
            integer(start),
            integer(stop),
        )
    return jax.device_get((state, totals))


@pytest.mark.slow
def test_an_epoch_in_pieces_is_the_same_bit_for_bit(key):
    state, images, labels, options = problem(key, net=DENSE)
    run = compiled(**options, micro_batch=8)
    whole = run_steps(run, state, images, labels, key, (0, 4))
    pieces = run_steps(run, state, images, labels, key, (0, 1, 3, 4))
    chex.assert_trees_all_equal(whole, pieces)
    assert int(whole[1].steps) == int(whole[0].step) == 4
    assert run._cache_size() == 1, "the bounds must not be compiled in"


@pytest.mark.slow
@pytest.mark.parametrize("axis", [AxisType.Auto, AxisType.Explicit])
def test_an_epoch_on_four_devices_agrees_with_one(key, axis):
    state, images, labels, options = problem(key, net=DENSE)
    one = run_steps(compiled(**options), state, images, labels, key, (0, 4))
    devices = jax.make_mesh((4,), (train.BATCH,), axis_types=(axis,))
    everywhere = NamedSharding(devices, PartitionSpec())
    put = functools.partial(jax.device_put, device=everywhere)
    run = compiled(**options, mesh=devices)
    placed = put((state, images, labels, key))
    many = run_steps(run, *placed, (0, 1, 4))
    assert run._cache_size() == 1, "what comes back is placed as what was given"
    chex.assert_trees_all_close(one[0].params, many[0].params, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(one[1].loss, many[1].loss, rtol=1e-5)


def several_runs(key, count):
    """States, images, labels and keys of runs that differ in all of them."""
    keys = jax.random.split(key, count)
    runs = []
    for index, each in enumerate(keys):
        state, images, labels, options = problem(each, net=DENSE)
        order = np.random.default_rng(index).permutation(len(labels))
        images = np.roll(images, index, 2)[order]
        arrays = map(jnp.asarray, (images, np.asarray(labels)[order]))
        runs.append((state, *arrays, each))
    return runs, options


def run_together(options, runs, devices, bounds):
    """Returns the result of `run_steps` for each run, all run by one program."""
    spread = NamedSharding(mesh(devices, train.SEED), PartitionSpec(train.SEED))
    totals = len(runs) * [train.Totals.zeros()]
    state, images, labels, keys, totals = jax.device_put(
        jax.tree.map(stacked, *map(tuple_of, runs, totals)),
        spread,
    )
    run = compiled(**options, seeds=mesh(devices, train.SEED))
    for start, stop in itertools.pairwise(bounds):
        state, totals = run(
            state,
            totals,
            images,
            labels,
            keys,
            integer(1),
            integer(start),
            integer(stop),
        )
        for leaf in jax.tree.leaves((state, totals)):
            # Results are placed as the arguments were.
            assert leaf.sharding.is_equivalent_to(spread, leaf.ndim)
    together = jax.device_get((state, totals))
    return [
        jax.tree.map(lambda leaf, i=index: leaf[i], together)
        for index in range(len(runs))
    ]


def tuple_of(run, totals):
    return (*run, totals)


def stacked(*leaves):
    """Leaves of several runs as one, on the host unless they are PRNG keys."""
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    return np.stack(leaves)


@pytest.mark.slow
def test_runs_on_devices_of_their_own_are_what_each_is_alone(key):
    devices = 3
    runs, options = several_runs(key, devices)
    together = run_together(options, runs, devices, (0, 1, 4))
    alone = compiled(**options)
    for run, (state, totals) in zip(runs, together, strict=True):
        expected = run_steps(alone, *run, (0, 4), epoch=1)
        chex.assert_trees_all_equal((state, totals), expected)
        assert int(state.step) == int(totals.steps) == 4
    losses = {float(totals.loss) for _, totals in together}
    assert len(losses) == devices, "runs of their own seed and images differ"


@pytest.mark.slow
def test_two_runs_on_one_device_agree_with_each_alone(key):
    runs, options = several_runs(key, 4)
    together = run_together(options, runs, 2, (0, 1))
    alone = compiled(**options)
    for run, (state, totals) in zip(runs, together, strict=True):
        expected, expected_totals = run_steps(alone, *run, (0, 1), epoch=1)
        np.testing.assert_allclose(totals.loss, expected_totals.loss, rtol=1e-5)
        assert int(totals.correct) == int(expected_totals.correct)
        moved, wanted = (
            change(after.params, run[0].params) for after in (state, expected)
        )
        assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(wanted)) > 1e-3
        chex.assert_trees_all_close(moved, wanted, rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_equal(state.frozen, expected.frozen)


@pytest.mark.slow
def test_a_run_that_ends_does_not_end_the_others(key):
    # On three devices, each runs alone, as above.
    runs, options = several_runs(key, 3)
    bad = runs[1][0]
    params = {
        **bad.params,
        "scale": jax.tree.map(lambda s: s * jnp.inf, bad.params["scale"]),
    }
    runs[1] = (bad.replace(params=params), *runs[1][1:])
    # On two devices, the bad one runs beside a good one, as two below.
    for devices, several in ((3, runs), (2, [*runs, runs[0]])):
        found = run_together(options, several, devices, (0, 4))
        for index, (state, totals) in enumerate(found):
            if index == 1:
                assert int(totals.steps) == 1 and not np.isfinite(totals.loss)
            else:
                assert int(state.step) == int(totals.steps) == 4
                assert np.isfinite(totals.loss)


@pytest.mark.slow
def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own(key):
    state, _, _, options = problem(key, net=DENSE)
    # Each image is its own number, so that what a step saw can be read back.
    numbers = jnp.arange(64, dtype=jnp.uint8).reshape(64, 1, 1, 1)
    images = jnp.broadcast_to(numbers, (64, 8, 8, 1))
    seen = []

    def prepare(key, images):
        jax.debug.callback(
            lambda batch: seen.append(batch[:, 0, 0, 0].tolist()), images
        )
        return augment.to_float(images)

    run = train.compile_steps(batch_size=BATCH, prepare=prepare, **options)
    labels = jnp.zeros(64, jnp.int32)
    orders = []
    for epoch in (0, 1):
        run_steps(run, state, images, labels, key, (0, 4), epoch)
        jax.effects_barrier()
        orders.append(list(itertools.chain.from_iterable(seen)))
        seen.clear()
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    assert orders[0] != orders[1] and orders[0] != list(range(64))


@pytest.mark.slow
def test_training_learns_and_leaves_the_frozen_weights_alone(key):
    state, images, labels, options = problem(key, net=DENSE)
    run = compiled(**options)
    before = jax.device_get(state.frozen)
    losses = []
    for epoch in range(80):
        state, totals = run_steps(run, state, images, labels, key, (0, 4), epoch)
        losses.append(float(totals.loss) / 4)
    assert losses[-1] < 0.5 * losses[0]
    chex.assert_trees_all_equal(state.frozen, before)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_program_at_its_step(key):
    state, images, labels, options = problem(key, net=DENSE)
    # The first update makes scales, and what is kept, far too large.
    momentum = jax.tree.map(lambda leaf: jnp.full_like(leaf, -1e30), state.opt_state)
    state = state.replace(opt_state=momentum)
    state, totals = run_steps(compiled(**options), state, images, labels, key, (0, 4))
    assert not np.isfinite(totals.loss)
    assert 1 < int(totals.steps) < 4
    assert int(state.step) == int(totals.steps)


@pytest.mark.slow
def test_an_epoch_runs_in_double_precision_too(key):
    state, images, labels, options = problem(key, net=DENSE)
    with jax.enable_x64(True):
        made = jax.eval_shape(creation(options["model"], OPTIMISER), key)
        chex.assert_trees_all_equal_dtypes(made, state)
        state, totals = run_steps(
            compiled(**options), state, images, labels, key, (0, 4)
        )
    assert np.isfinite(totals.loss) and int(totals.steps) == 4


def test_the_state_is_donated(key):
    state, images, labels, options = problem(key, net=DENSE)
    logits = state.params["logits"]["Dense_0/kernel"]
    run = compiled(**options)
    run(
        state,
        train.Totals.zeros(),
        images,
        labels,
        key,
        *(integer(number) for number in (0, 0, 1)),
    )
    assert logits.is_deleted()


class BatchNormNet(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x)).mean((1, 2))
        return nn.Dense(3)(nn.Dropout(0.3, deterministic=not train)(x))


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [None, 8])
def test_batch_statistics_move_and_dropout_has_a_stream(key, micro_batch):
    state, images, labels, options = problem(key, net=BatchNormNet())
    after, loss, _ = one_step(micro_batch=micro_batch, **options)(
        state, *whole_batch(images, labels), key
    )
    assert np.isfinite(loss)
    assert sorted(after.collections) == ["batch_stats"]
    for old, new in zip(
        jax.tree.leaves(state.collections),
        jax.tree.leaves(after.collections),
        strict=True,
    ):
        assert np.all(old != new)


class Shrink:
    """A method of another kind: it trains the weights and penalises their size."""

    stochastic = False

    def init(self, key, weights, *, select=kernels):
        return {}, {"weights": weights}

    def effective_weights(self, frozen, params, *, key=None):
        return params["weights"]

    def penalty(self, frozen, params):
        return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


class TopHalf:
    """Another: it keeps the half of each kernel with the highest scores."""

    stochastic = False

    def init(self, key, weights, *, select=kernels):
        named = named_leaves(weights, select)
        keys = split_by_name(key, named)
        return weights, {
            "scores": {
                name: jax.random.uniform(keys[name], leaf.shape)
                for name, leaf in named.items()
            }
        }

    def effective_weights(self, frozen, params, *, key=None):
        def keep(name, weight):
            scores = params["scores"][name]
            hard = (scores >= jnp.median(scores)).astype(scores.dtype)
            return weight * (scores + jax.lax.stop_gradient(hard - scores))

        return map_named(frozen, params["scores"], keep)

    def penalty(self, frozen, params):
        return jnp.zeros(())


@pytest.mark.slow
def test_the_step_serves_a_method_that_trains_weights_under_a_penalty(key):
    optimiser = sgd_by_group({"weights": 0.1}, momentum=0.0)
    state, images, labels, options = problem(key, DENSE, Shrink(), optimiser)
    inputs, truth = whole_batch(images, labels)

    def task(weights):
        logits = DENSE.apply({"params": weights}, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()

    weights = state.params["weights"]
    value, gradient = jax.jit(jax.value_and_grad(task))(weights)
    penalty = 0.5 * sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(weights))
    after, loss, _ = one_step(**options)(state, inputs, truth, key)
    np.testing.assert_allclose(loss, value + penalty, rtol=1e-5)
    expected = jax.tree.map(
        lambda w, g: w - np.float32(0.1) * (g + w), *jax.device_get((weights, gradient))
    )
    chex.assert_trees_all_close(after.params["weights"], expected, rtol=1e-4, atol=1e-6)
    assert after.frozen == {}


@pytest.mark.slow
def test_the_step_serves_a_method_of_scores(key):
    optimiser = sgd_by_group({"scores": 1.0})
    state, images, labels, options = problem(key, DENSE, TopHalf(), optimiser)
    run = compiled(**options)
    losses = []
    for epoch in range(60):
        state, totals = run_steps(run, state, images, labels, key, (0, 4), epoch)
        losses.append(float(totals.loss) / 4)
    assert losses[-1] < 0.7 * losses[0]

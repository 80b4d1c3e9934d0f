"""The benchmarks run and compute what they say; how fast is for them to tell."""

import csv
import functools
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate

from aslp_jax import ASLP, Magnitude, Masked, models
from aslp_jax.data import augment
from aslp_jax.ops import threefry
from benchmarks import (
    draw,
    export_networks,
    export_runs,
    exports,
    growth,
    masking,
    memory,
    rescale,
    samplers,
    startup,
    timing,
    training_step,
    workload,
)

SIDE = 8  # of images whose size changes nothing that a test asserts


@pytest.fixture
def small(monkeypatch):
    """Networks of images of `SIDE` pixels: most of their weights depend on it."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    monkeypatch.setattr(workload, "_IMAGE", image)


@pytest.mark.parametrize("logit", [0.0, 0.005, 0.02, -1.0, 4.0, -9.0, 30.0])
def test_the_closed_form_is_the_integral(logit):
    slope = samplers.sigmoid_slope
    integral, _ = scipy.integrate.quad(
        lambda noise: slope(logit + noise) * slope(noise), -60, 60, epsabs=1e-16
    )
    expected = float(samplers.expected_slope(np.array(logit)))
    assert expected == pytest.approx(integral, rel=1e-4)


def test_samplers_writes_what_it_measured(tmp_path, capsys):
    samplers.main(f"--out {tmp_path} --logits 1000 --draws 4096 --repeats 1".split())
    printed = capsys.readouterr().out
    assert (
        "float32   ASLP (stgs)                 gradients finite everywhere" in printed
    )
    assert "naive Gumbel-Softmax        gradients not finite at logits [20" in printed
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "cost.csv",
        "stability.csv",
        "stability.png",
        "gradients.csv",
        "gradients.png",
    }


def test_stability_counts_what_is_drawn():
    lines = samplers.measure_stability(2**12)
    for line in lines:
        if line["sampler"] != "naive" and abs(line["logit"]) <= 4:
            assert abs(line["sigmas"]) < 5
            assert line["gradients_not_finite"] == line["samples_not_finite"] == 0


def test_masking_learns_logits_and_scales():
    params, _ = jax.device_get(rescale.masking("conv6", "smart", 1)())
    assert set(params) == {"logits", "scale"}
    moved = [np.abs(leaf).max() for leaf in params["logits"].values()]
    assert np.isfinite(moved).all() and min(moved) > 0
    assert all(scale != 1 for scale in params["scale"].values())


@pytest.mark.program
def test_seeds_as_one_program_give_the_same_bits():
    line = "--arch conv2 --steps 2 --repeats 1 --batch-size 4"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.seeds", *line.split()],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert "one a device gives the same bits as alone: yes" in ended.stdout, (
        ended.stderr
    )


@pytest.mark.parametrize("augment", [False, True])
def test_both_sides_of_the_training_step_take_their_steps(augment, small):
    size = {"batch_size": 4, "steps": 2, "augment": augment}
    training_step.ours("conv2", *workload.random_images(8, SIDE), **size)()
    pytest.importorskip("torch", reason="the comparison needs PyTorch")
    training_step.theirs("conv2", *workload.random_images(8), **size)()


def test_crops_and_flips_in_pytorch_keep_pixels_and_bring_in_zeros():
    torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
    from benchmarks import pytorch

    torch.manual_seed(0)
    images = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8).expand(500, 2, 8, 8)
    shifted = pytorch.crop_and_flip(images, pad=2)
    assert shifted.shape == images.shape
    kinds = {tuple(each.flatten().tolist()) for each in shifted[:, 0]}
    assert len(kinds) == 5 * 5 * 2
    expected = set()
    padded = torch.nn.functional.pad(images[:1, :1], (2, 2, 2, 2))[0, 0]
    for row in range(5):
        for column in range(5):
            part = padded[row : row + 8, column : column + 8]
            expected |= {tuple(x.flatten().tolist()) for x in (part, part.flip(1))}
    assert kinds == expected


@pytest.mark.parametrize("arch", ["conv2", "conv4"])
def test_the_step_in_pytorch_is_ours(arch, key):
    torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
    from benchmarks import pytorch

    images, labels = workload.random_images(4, SIDE)
    # Half of the weights, the same on both sides, and the slope of the identity.
    theirs = pytorch.Step(
        arch,
        mask=lambda logits: (logits > 0).float() + logits - logits.detach(),
        side=SIDE,
    )
    model = Masked(models.NETWORKS[arch](classes=10), ASLP())
    inputs = augment.to_float(jnp.asarray(images))
    variables = jax.jit(model.init)(key, inputs)
    params, frozen = variables["params"], variables["frozen"]
    names = list(params["logits"])
    half = {
        name: jax.random.normal(jax.random.fold_in(key, index), leaf.shape)
        for index, (name, leaf) in enumerate(params["logits"].items())
    }
    flat = {
        name: np.asarray(each)
        for name, each in zip(names, jax.tree.leaves(frozen), strict=True)
    }
    assert [flat[name].shape for name in names] == [half[name].shape for name in names]

    def to_torch(array: np.ndarray) -> Any:
        order = (3, 2, 0, 1) if array.ndim == 4 else (1, 0)
        return torch.from_numpy(np.array(np.transpose(array, order)))

    made = pytorch.shapes(arch, SIDE, 3, 10)
    side = SIDE >> len(pytorch.STAGES[arch])
    for index, name in enumerate(names):
        for target, source in (
            (theirs.weights, flat[name]),
            (theirs.logits, half[name]),
        ):
            source = np.asarray(source)
            if name == "Dense_0/kernel":  # what is flattened lies in another order
                source = source.reshape(side, side, -1, source.shape[-1])
                source = source.transpose(2, 0, 1, 3).reshape(flat[name].shape)
            tensor = to_torch(source)
            assert tuple(tensor.shape) == made[index]
            target[index].data.copy_(tensor)

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(labels).long()
    kept = {**params, "logits": half}

    def loss(scales):
        outputs = model.apply(
            {"frozen": frozen, "params": {**kept, "scale": scales}}, inputs
        )
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return each.mean(), outputs

    (value, outputs), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        kept["scale"]
    )
    got = theirs.outputs(pixels).detach().numpy()
    np.testing.assert_allclose(got, outputs, rtol=1e-3, atol=1e-4)
    before = [scale.item() for scale in theirs.scales]
    assert float(theirs(pixels, truth)) == pytest.approx(float(value), rel=1e-4)
    # The first step of SGD moves by its rate times the gradient.
    for index, name in enumerate(names):
        moved = (before[index] - theirs.scales[index].item()) / pytorch.SCALE_RATE
        assert moved == pytest.approx(float(slopes[name]), rel=2e-2, abs=2e-3)
    assert all(logits.grad.abs().max() > 0 for logits in theirs.logits)


def test_sides_take_turns_and_the_first_of_each_does_not_count():
    taken = []
    sides = {name: functools.partial(taken.append, name) for name in "ab"}
    seconds = timing.interleave_all(sides, 3)
    assert taken == 4 * ["a", "b"]
    assert [len(each) for each in seconds.values()] == [3, 3]
    assert 0 < timing.interleave({"a": lambda: time.sleep(0.01)}, 1)["a"] - 0.01 < 1


@pytest.mark.parametrize(
    "value, bound, least, met",
    [
        (1.2, 1.3, False, True),
        (1.4, 1.3, False, False),
        (1.4, 1.3, True, True),
        (1.2, 1.3, True, False),
        (1.3, 1.3, True, True),
        (1.3, 1.3, False, True),
        (float("nan"), 1.3, False, False),
        (float("nan"), 1.3, True, False),
    ],
)
def test_a_claim_is_met_on_the_right_side_of_its_bound(value, bound, least, met):
    claim = timing.Claim("epoch", value, bound, least=least)
    assert claim.met is met
    side = "at least" if least else "at most"
    verdict = "met" if met else "NOT MET"
    assert str(claim) == f"epoch: {value:.2f} times ({side} 1.3: {verdict})"


def test_a_turn_takes_whole_steps_or_says_that_the_loss_ended_them(small):
    images, labels = workload.random_images(8, SIDE)
    program, create = workload.training(workload.network("conv2"), batch_size=4)
    workload.side(program, create(), images, labels, steps=2)()
    broken = create()
    lost = jax.tree.map(lambda leaf: leaf * jnp.nan, broken.params)
    broken = broken.replace(params=lost)
    with pytest.raises(RuntimeError, match="the loss was not finite after step 1"):
        workload.side(program, broken, images, labels, steps=2)()


def test_work_is_that_of_the_networks_layers():
    # Two operations a multiplication and addition: two convolutions of 32x32 positions,
    # padding counted by those that XLA counts, and three dense layers.
    positions, padded = 32 * 32, (3 * 32 - 2) ** 2 / 9
    dense = 16 * 16 * 64 * 256 + 256 * 256 + 2560
    assert padded < positions
    counted = workload.flops(workload.network("conv2")) / 6
    assert counted == pytest.approx(padded * 9 * (3 + 64) * 64 + dense, rel=0.01)


def test_a_wider_network_has_wider_layers():
    net = workload.network("conv4", width=2)
    weights = sum(leaf.size for leaf in jax.tree.leaves(workload.kernels(net)))
    plain = sum(
        leaf.size
        for leaf in jax.tree.leaves(workload.kernels(workload.network("conv4")))
    )
    assert 3.9 * plain < weights < 4 * plain  # the images keep their three channels


def test_masks_are_drawn_over_and_over_with_a_gradient():
    logits = jnp.linspace(-3, 3, 999)
    drawn, gradient = draw.masks(logits, 3)()
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert float(gradient.min()) > 0
    made, gradient = draw.products(logits, 2 * jnp.ones(999), 2)()
    assert set(np.unique(made)) == {0.0, 2.0}
    assert float(jnp.abs(gradient).max()) > 0
    read = draw.copies(logits, jnp.ones(999), 2)()
    np.testing.assert_allclose(read[0], 1 + 2 * logits, rtol=1e-6)


def test_words_drawn_over_and_over_are_of_their_keys():
    found = draw.words(99, 2, jax.random.bits)()
    expected = [
        jax.random.bits(jax.random.fold_in(jax.random.key(0), index), (99,))
        for index in range(2)
    ]
    np.testing.assert_array_equal(found, expected[0] ^ expected[1])
    np.testing.assert_array_equal(draw.words(99, 2, threefry.bits)(), found)


def test_masked_and_trained_steps_and_bare_passes_do_the_work_they_say(small):
    data = workload.random_images(8, SIDE)
    for side in (masking.masked, masking.trained):
        side("conv2", data, batch_size=4, steps=2)()  # raises unless all are taken
    gradient, losses = masking.passes("conv2", data, batch_size=4, steps=2)()
    assert losses.shape == (2,) and np.isfinite(losses).all()
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0


def test_no_mask_and_no_noise_is_kept_while_the_network_runs():
    held, needed = memory.analyse("conv2")
    _, without = memory.analyse("conv2", Magnitude(keep_fraction=1.0))
    assert held == pytest.approx(12, abs=0.01)
    assert needed - without < memory.KEPT_BYTES


@pytest.mark.program
def test_growth_is_measured_in_processes_of_their_own(tmp_path):
    one = growth.in_a_process({"width": 1, "batch": 4, "devices": 2}, 1)
    assert one["seconds"] > 0 and one["weights"] == 2_425_024
    assert one["state_bytes"] == pytest.approx(12 * one["weights"], rel=0.01)
    lines = [
        {"factor": factor, **growth.START, factor: value, **one, "seconds": value}
        for factor, values in growth.FACTORS.items()
        for value in values
    ]
    assert [each["seconds"] for each in growth.growth(lines, "width")] == [1, 2, 4]
    growth.write(lines, tmp_path / "growth.csv")
    growth.plot(lines, tmp_path / "growth.png")
    written = (tmp_path / "growth.csv").read_text().splitlines()
    assert len(written) == 1 + 9 and written[0].startswith("factor,width,batch,devices")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_masks_of_the_naive_form_are_zeros_and_ones():
    torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
    from benchmarks import pytorch

    logits = torch.zeros(10_000, requires_grad=True)
    mask = pytorch.gumbel_mask(logits)
    assert set(mask.detach().unique().tolist()) == {0.0, 1.0}
    assert abs(float(mask.detach().mean()) - 0.5) < 0.025
    mask.sum().backward()
    assert float(logits.grad.min()) > 0


def test_start_up_is_that_of_whole_processes():
    assert min(startup.imports(1)) > 0
    with pytest.raises(subprocess.CalledProcessError):
        startup.seconds("-c", "raise SystemExit(2)")
    assert all((startup.EXPERIMENTS / name).exists() for name in startup.PROGRAMS)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
def test_exports_weighs_and_times_every_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_runs, "SECONDS", 1e-6)
    monkeypatch.setattr(exports, "ROUNDS", 1)
    root = pathlib.Path(exports.__file__).parents[1]
    artefact = root / "examples" / "embedded" / "digits.aslp"
    written = tmp_path / "new" / "digits.csv"
    assert exports.main([str(artefact), "--out", str(written)]) == 0
    with written.open() as file:
        rows = {(row["export"], row["storage"]): row for row in csv.DictReader(file)}
    expected = {(kind, each) for kind, all in exports.EXPORTS.items() for each in all}
    assert set(rows) == expected | {("aslp", "seed"), ("aslp", "embedded")}
    assert int(rows["aslp", "seed"]["file_bytes"]) == artefact.stat().st_size
    # 368 thousand weights, half of them kept: a bit each, and a sign for the kept ones.
    flash = {each: int(rows["c", each]["flash_bytes"]) for each in exports.EXPORTS["c"]}
    assert flash["seed"] < 49_000 < flash["signs"] < 72_000
    assert 5 * 184_000 < flash["sparse"] < 5.1 * 184_700 < flash["dense"]
    assert {int(row["dense_multiply_adds"]) for row in rows.values()} == {
        64 * 9 * (64 + 64 * 64) + 4 * 4 * 64 * 256 + 256 * 256 + 256 * 10
    }
    for row in rows.values():
        if row["export"] in ("c", "onnx", "stablehlo"):
            assert row["same_predictions"] == "360 of 360"
            times = float(row["dense_ms_per_image"]) / float(row["ms_per_image"])
            assert float(row["speed_over_dense"]) == pytest.approx(times, rel=0.01)
    assert "256,000 allowed" in capsys.readouterr().out


def test_random_networks_keep_what_was_asked_for():
    network = export_networks.random_network("conv2", (4, 4, 1), 0.1)
    kept = sum(each.kept for each in network.entries.values())
    weights = sum(each.weights.size for each in network.entries.values())
    assert kept / weights == pytest.approx(0.1, abs=0.005)
    dense = export_networks.without_masks(network)
    for name, each in dense.entries.items():
        assert np.count_nonzero(each.weights) == each.weights.size
        mask = network.entries[name].mask
        np.testing.assert_array_equal(
            each.weights[mask], network.entries[name].weights[mask]
        )

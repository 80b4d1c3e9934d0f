"""The benchmarks run and compute what they say; how fast is for them to tell."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import rescale
import samplers
import scipy.integrate
import seeds


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
    params, _ = jax.device_get(rescale.masking("conv6", "smart", 1)(0))
    assert set(params) == {"logits", "scale"}
    moved = [np.abs(leaf).max() for leaf in params["logits"].values()]
    assert np.isfinite(moved).all() and min(moved) > 0
    assert all(scale != 1 for scale in params["scale"].values())


@pytest.mark.program
def test_seeds_as_one_program_give_the_same_bits():
    line = "--arch conv2 --steps 2 --repeats 1 --batch-size 4"
    ended = subprocess.run(
        [sys.executable, seeds.__file__, *line.split()],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert "one a device gives the same bits as alone: yes" in ended.stdout, (
        ended.stderr
    )

"""Samplers: closed forms, counts and files of the benchmark."""

import numpy as np
import pytest
import scipy.integrate

from benchmarks import samplers


@pytest.mark.parametrize("logit", [0.0, 0.005, 0.02, -1.0, 4.0, -9.0, 30.0])
def test_the_closed_form_is_the_integral(logit):
    slope = samplers.sigmoid_slope
    integral, _ = scipy.integrate.quad(
        lambda noise: slope(logit + noise) * slope(noise), -60, 60, epsabs=1e-16
    )
    expected = float(samplers.expected_slope(np.array(logit)))
    assert expected == pytest.approx(integral, rel=1e-4)


@pytest.mark.slow
def test_the_benchmark_writes_tables_and_plots(tmp_path, capsys):
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


@pytest.mark.slow
def test_stability_counts_kept_weights():
    lines = samplers.measure_stability(2**12)
    for line in lines:
        if line["sampler"] != "naive" and abs(line["logit"]) <= 4:
            assert abs(line["sigmas"]) < 5
            assert line["gradients_not_finite"] == line["samples_not_finite"] == 0

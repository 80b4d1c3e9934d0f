"""`aslp-jax extract`: the network of a run is the same in its file, to the bit."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aslp_jax
from aslp_jax.artefact import NETWORK
from aslp_jax.cli.main import main
from tests.artefact.own import Depthwise, own_file
from tests.cli.runs import FinishedRun, resume


@pytest.fixture(scope="module", params=["digits", "noise"])
def finished(request) -> FinishedRun:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def extracted(finished, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("extracted") / "network.aslp"
    assert main(["extract", str(finished.folder), "-o", str(path)]) == 0
    return path


@pytest.mark.slow
def test_logits_are_those_of_the_run_to_the_bit(finished, extracted):
    subnetwork = aslp_jax.load(extracted)
    logits = subnetwork(finished.data.test_images)
    np.testing.assert_array_equal(logits, finished.outputs)
    right = np.argmax(logits, -1) == finished.data.test_labels
    result = json.loads((finished.folder / "result.json").read_text())
    assert np.float32(right.mean()) == np.float32(result["thresholding"])
    assert right.mean() < 1 and (right.mean() > 0.3 or len(right) < 100)
    assert subnetwork.description.accuracies["thresholding"] == result["thresholding"]


@pytest.mark.slow
def test_logits_are_those_of_masked_when_each_is_one_program(digits):
    subnetwork = aslp_jax.load(digits.folder / NETWORK)
    inputs = subnetwork.prepare(jnp.asarray(digits.data.test_images))
    model = digits.session.run.programs.model
    masked = jax.jit(functools.partial(model.apply, train=False))
    plain = jax.jit(functools.partial(subnetwork.net.apply, train=False))
    np.testing.assert_array_equal(
        plain(subnetwork.variables, inputs), masked(digits.variables, inputs)
    )


@pytest.mark.slow
def test_the_description_is_that_of_the_run(finished, extracted):
    about = aslp_jax.load(extracted).description
    config, data = finished.session.run.config, finished.data
    for name in ("arch", "dataset", "method", "seed"):
        assert getattr(about, name) == getattr(config, name)
    assert about.classes == 10 and about.image_shape == data.test_images.shape[1:]
    assert about.mean == (data.mean if config.standardise else None)
    assert about.std == (data.std if config.standardise else None)
    assert config.standardise == (config.dataset == "cifar10")
    assert about.versions["jax"] == jax.__version__
    assert set(about.accuracies) == {
        "thresholding",
        "averaging_mean",
        "averaging_std",
        "single",
    }


@pytest.mark.slow
def test_a_file_holds_the_keys_of_its_weights_alone(finished, extracted):
    subnetwork = aslp_jax.load(extracted)
    assert {each.origin for each in subnetwork.layers.values()} == {"recipe"}
    weights = sum(each.weights.size for each in subnetwork.layers.values())
    assert 8 * extracted.stat().st_size <= 1.06 * weights
    # Extracted or left by the run, it is the same file.
    assert extracted.read_bytes() == (finished.folder / NETWORK).read_bytes()


@pytest.mark.slow
def test_embedded_weights_give_the_same_logits(finished, extracted, tmp_path, capsys):
    path = tmp_path / "embedded.aslp"
    command = ["extract", str(finished.folder), "-o", str(path), "--embed-weights"]
    assert main(command) == 0
    size = path.stat().st_size
    assert f"{path}: {size:,} bytes" in capsys.readouterr().out
    subnetwork = aslp_jax.load(path)
    assert not any(each.recipe for each in subnetwork.layers.values())
    np.testing.assert_array_equal(
        subnetwork(finished.data.test_images), finished.outputs
    )
    kept = sum(each.kept for each in subnetwork.layers.values())
    signs = finished.session.run.config.dataset == "digits"
    more = 8 * (size - extracted.stat().st_size) / kept
    assert (0.9 < more < 1.1) if signs else (29 < more < 33)


@pytest.mark.slow
def test_a_resumed_run_has_no_network_until_it_is_finished(noise, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(noise.folder, folder)
    data, config = noise.data, noise.session.run.config
    resume(config, data, folder)
    assert (folder / NETWORK).exists() and (folder / "result.json").exists()
    resume(dataclasses.replace(config, epochs=2), data, folder)
    assert not (folder / NETWORK).exists() and not (folder / "result.json").exists()
    assert main(["extract", str(folder), "-o", str(tmp_path / "new")]) == 2
    assert "holds no finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("extract RUN", "required: -o/--output"),
        ("extract NOWHERE -o new", "NOWHERE is no run folder"),
        ("extract RUN/network.aslp -o new", "network.aslp is no run folder"),
        (
            "extract BEGUN -o new",
            "BEGUN holds no finished run, which has a network.aslp",
        ),
        ("extract DAMAGED -o new", "DAMAGED/network.aslp is damaged or truncated"),
        ("extract RUN -o NOWHERE/new", "cannot write NOWHERE/new: No such file"),
        ("extract RUN -o DAMAGED", "cannot write DAMAGED: Is a directory"),
        ("extract RUN -o .", "cannot write .: Is a directory"),
        ("extract RUN -o RUN/network.aslp", "RUN/network.aslp is the input file"),
        (f"extract {'x' * 300} -o new", "x: File name too long"),
        ("extract RUN -o new --embed", "unrecognized arguments: --embed"),
    ],
)
def test_bad_input_is_one_line(line, words, refused):
    refused(line, words)


@pytest.mark.parametrize("embed", [False, True])
def test_a_network_of_ones_own_needs_no_module(embed, tmp_path, capsys):
    (tmp_path / NETWORK).write_bytes(own_file("linen"))
    out = tmp_path / "own.aslp"
    flags = ["--embed-weights"] if embed else []
    assert main(["extract", str(tmp_path), "-o", str(out), *flags]) == 0
    (said,) = capsys.readouterr().out.splitlines()
    left = f"{tmp_path / NETWORK}, {len(own_file('linen')):,} bytes"
    assert said.endswith(
        f"bits a weight; {'made from' if embed else 'a copy of'} {left}"
    )
    assert (out.read_bytes() == own_file("linen")) != embed
    read = aslp_jax.load(out, net=Depthwise())
    assert (read.layers["stem/kernel"].recipe is None) == embed

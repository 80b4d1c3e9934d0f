"""Report on a run: it says what result.json says, and escapes what others named."""

import dataclasses
import re

import numpy as np
import pytest

import aslp_jax
from aslp_jax.trainer import report
from aslp_jax.trainer.options import FIELDS, Config, flag
from tests.helpers import SIX, epoch_row, run_result
from tests.webpage import pages
from tests.webpage.runs import ABOUT, NAMES, finished_run


@pytest.fixture(scope="module")
def finished():
    return finished_run()


def test_a_report_says_what_the_result_says(finished):
    page, result = pages.check(report.run_report(finished)), finished.result
    assert page.one("h1").text == "aslp on conv4, digits, seed 7"
    found = pages.facts(page)
    assert found["Test accuracy"] == f"{result.thresholding:.2%} thresholding"
    assert found["Test accuracy, others"].startswith("84.23% ± 0.31% averaging 10")
    assert found["Validation accuracy"] == "86.34% at its best, epoch 120"
    assert found["Size of network.aslp"] == "48,123 bytes"
    assert found["Resumed after epoch 3"] == "2026-02-01T12:00:00+0000"
    assert found["Commit"] == ABOUT["commit"]
    layers = pages.tables(page)["Layers of the network, best state"]
    assert [row["layer"] for row in layers] == list(SIX)
    for row in layers:
        name = row["layer"]
        assert row["weights"] == f"{SIX[name]:,}"
        assert row["kept"] == f"{result.keep_fractions[name]:.2%}"
        assert row["scale"] == f"{result.scalars['scale'][name]:.4g}"
        assert (row["kept on a path"], row["without input"]) == ("49", "1")
    # Nine layers of ten units, of which one has no input; two of a hundred weights.
    assert found["Units without input"] == "9 of 90"
    assert found["Kept weights on no path"] == "2.00 %"
    assert "no path from the images reaches 1 of the 10 classes" in page.text
    assert [each.one("title").text for each in page.all("svg")] == [
        "Loss",
        "Accuracy",
        "Weights kept, by layer",
        "Keep-probabilities, all layers",
    ]
    assert [each.attributes["alt"] for each in page.all("img")] == [
        "filters of Conv_0, frozen",
        "filters of Conv_0, masked and scaled",
    ]


def test_options_stand_with_their_defaults_and_the_command_gives_them_again(finished):
    page = pages.parse(report.run_report(finished))
    (options,) = [
        found for caption, found in pages.tables(page).items() if "Options" in caption
    ]
    listed = {row["option"]: row for row in options}
    wanted = [flag(name) for name in FIELDS if name != "model_sha256"]
    assert list(listed) == wanted
    assert listed["--epochs"]["value"] == "12"
    assert listed["--epochs"]["default, where it differs"] == "1000"
    assert listed["--patience"]["default, where it differs"] == ""
    assert listed["--augment"]["value"] == "on"
    assert listed["--keep-fraction"]["value"] == "none"
    again, given = [each.text for each in page.all("pre")]
    assert again.startswith("aslp-jax train --preset paper --arch conv4 --dataset digi")
    assert "--epochs 12" in again and "--seed 7" in again
    assert given == "aslp-jax train --out 'a <b>'"


def test_names_of_others_are_text(finished):
    hostile = "<img src=x onerror=alert(1)>"
    config = Config(arch="own", model="net.py:Net", model_args=hostile)
    layers = {hostile: 100, "b/kernel": 50}
    run = dataclasses.replace(
        finished,
        config=config,
        about={**ABOUT, "command": ["x", hostile], "device": hostile},
        rows=[epoch_row(1, layers)],
        result=run_result(
            weights=layers,
            keep_fractions=dict.fromkeys(layers, 0.5),
            scalars={},
            connectivity={},
        ),
        fractions=np.zeros(50),
    )
    page = pages.check(report.run_report(run))
    classes = pages.facts(page)["Classes"]
    assert classes == f"10: {', '.join(NAMES)}"
    layers, _ = pages.tables(page).values()
    assert [row["layer"] for row in layers] == list(run.result.weights)
    assert page.text.count(hostile) >= 4
    assert len(page.all("svg")) == 3  # no keep-probabilities, no histogram
    assert "Not known: the network cannot be traced." in page.text


def test_a_long_run_has_a_page_of_the_same_size(finished):
    rows = [epoch_row(epoch) for epoch in range(1, 1001)]
    text = report.run_report(dataclasses.replace(finished, rows=rows))
    svg, *_ = pages.parse(text).all("svg")
    path, *_ = [
        each.attributes["d"]
        for each in svg.all("path")
        if "curve" in each.attributes["class"]
    ]
    assert path.count("L") == 299
    assert len(text) < 150_000
    ticks = [each.text for each in svg.all("text")]
    assert "1000" in ticks


def test_a_network_without_filters_says_so(finished):
    (name, dense) = next(
        (name, layer)
        for name, layer in finished.subnetwork.layers.items()
        if layer.weights.ndim == 2
    )
    source = aslp_jax.artefact.Source("net.py:Net")
    for layers in ({name: dense}, {}):
        own = dataclasses.replace(finished.subnetwork, layers=layers, source=source)
        run = dataclasses.replace(finished, subnetwork=own)
        page = pages.check(report.run_report(run))
        assert not page.all("img")
        assert re.search("no filters to show", page.text)

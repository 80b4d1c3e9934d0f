"""Search: halving by validation alone, and nothing is trained twice."""

import argparse
import csv

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.sweeps.grid import Grid
from aslp_jax.trainer.presets import resolve
from benchmarks import recipes, search
from tests.sweeps.helpers import few_digits, promotion_as_for_users, write_run

PNG = b"\x89PNG\r\n"


def setting(method, rate, epochs=3):
    return recipes.Setting("conv2", method, (("mask_lr", rate),), epochs)


def test_every_setting_means_something_and_has_a_name_of_its_own():
    every = search.settings("conv2", 3, search.SETTINGS)
    names = [each.name for each in every]
    assert len(set(names)) == len(names) == sum(map(len, search.SETTINGS.values()))
    # Each method has its turn: a search that is cut has tried all of them.
    assert {each.method for each in every[:3]} == set(search.SETTINGS)
    shared = {"dataset": "cifar10", "augment": False}
    found = [resolve("fast", {**shared, **each.options(0)}) for each in every]
    # No two settings are one recipe by two names.
    assert len({repr(each) for each in found}) == len(every)
    warm = {"aslp": [{"warmup_epochs": 1}, {}]}
    assert [each.changes for each in search.settings("conv2", 1, warm)] == [()]
    for method in search.SETTINGS:
        rates = {each.mask_lr for each in found if each.method == method}
        assert len(rates) >= 4, method


def test_the_best_of_each_method_go_on(tmp_path):
    grid = Grid(tmp_path / "grid", {})
    tried = []
    for method, accuracies in (
        ("aslp", (0.3, 0.9, 0.5, 0.8)),
        ("supermask", (0.2, 0.1)),
    ):
        for rate, accuracy in enumerate(accuracies, 1):
            tried.append(setting(method, float(rate)))
            # The test accuracy says the reverse.
            numbers = {
                "best_validation_accuracy": accuracy,
                "thresholding": 1 - accuracy,
            }
            write_run(grid, tried[-1], 0, **numbers)
    unfinished = setting("aslp", 9.0)
    found = [each.name for each in recipes.best(grid, [*tried, unfinished], 1 / 3)]
    assert found == [tried[1].name, tried[3].name, tried[4].name]
    assert recipes.best(grid, tried, 1) == [tried[1], tried[4]]


def test_a_folder_of_another_recipe_is_refused(tmp_path, monkeypatch):
    few = few_digits(64, 64)
    monkeypatch.setattr(recipes.datasets, "load", lambda name: few)
    parser = argparse.ArgumentParser()
    recipes.add_arguments(parser)
    options = parser.parse_args(["--dataset", "digits", "--out", str(tmp_path / "a")])
    recipes.Runs(options)
    recipes.Runs(options)
    other = {"fast": {**recipes.PRESETS["fast"], "mask_lr": 7.0}}
    monkeypatch.setattr(recipes, "PRESETS", other)
    with pytest.raises(BadInput, match=r"mask_lr 1\.0, not 7\.0"):
        recipes.Runs(options)


def test_the_plot_names_a_run_by_what_tells_it_from_the_best(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        recipes, "save_figure", lambda figure, _: figures.append(figure)
    )
    same = {**dict.fromkeys(recipes.COLUMNS, "1"), "seed": 0, "logit_std": None}
    lines = [
        {**same, "method": "aslp", "mask_lr": 0.5, "validation_last": "61.50"},
        {**same, "method": "aslp", "mask_lr": 1.0, "validation_last": "66.64"},
        {**same, "method": "edge_popup", "logit_std": "", "validation_last": "64.20"},
        {**same, "method": "aslp", "mask_lr": 9.0, "validation_last": "nan"},
        {**same, "method": "aslp", "logit_std": 3, "validation_last": "60.00"},
    ]
    recipes.plot_search(lines, tmp_path / "search.png")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "with mask lr 1, logit std 3",
        "with mask lr 0.5",
        "",
        "mask lr 1.0, logit std none",
    ]
    assert [text.get_text() for text in axes.texts] == ["60.0", "61.5", "66.6", "64.2"]
    assert [line.get_label() for line in axes.lines] == ["aslp", "edge-popup"]


@pytest.mark.slow
def test_a_search_goes_on_and_ends(tmp_path, monkeypatch, capsys):
    few = few_digits(640, 128)
    monkeypatch.setattr(recipes.datasets, "load", lambda name: few)
    slow = {"batch_size": 32, "mask_lr": 1e-6}
    fast = {**slow, "mask_lr": 0.5}
    monkeypatch.setattr(search, "SETTINGS", {"aslp": [slow, fast]})
    words = ["--dataset", "digits", "--epochs", "1", "2", "--methods", "aslp"]
    words += ["--out", str(tmp_path / "found")]
    with promotion_as_for_users():
        assert search.main([*words, "--minutes", "0.0001"]) == 0
        assert capsys.readouterr().out.startswith("0 runs")
        assert search.main(words) == 0
        assert search.main(words) == 0
    assert "0 runs to make" in capsys.readouterr().err
    with open(tmp_path / "found/search.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    runs = [(line["mask_lr"], line["epochs"], line["seed"]) for line in lines]
    assert runs == [
        ("1e-06", "1", "0"),
        ("0.5", "1", "0"),
        ("0.5", "2", "0"),
        ("0.5", "2", "1"),
        ("0.5", "2", "2"),
    ]
    assert (tmp_path / "found/search.png").read_bytes().startswith(PNG)
    assert all(len(line["validation"].split()) == int(line["epochs"]) for line in lines)
    assert float(lines[0]["validation_best"]) < float(lines[1]["validation_best"])

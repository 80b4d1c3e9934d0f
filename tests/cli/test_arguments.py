"""The options: defaults, presets, what is refused and in which words, resuming."""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aslp_jax._errors import EXIT_CODES, BadInput
from aslp_jax.cli.arguments import Command, parse
from aslp_jax.cli.errors import run_script
from aslp_jax.data.datasets import NAMES
from aslp_jax.data.names import IMAGENET
from aslp_jax.methods import METHODS
from aslp_jax.trainer import presets
from aslp_jax.trainer.options import (
    FIELDS,
    METHOD_OPTIONS,
    RESCALES,
    Config,
    check,
    flag,
)
from aslp_jax.trainer.presets import DATASET_DEFAULTS, PRESETS

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

PAPER = {
    "arch": "conv4",
    "model": None,
    "model_args": None,
    "model_sha256": None,
    "module_init": False,
    "dataset": "cifar10",
    "data": None,
    "image_size": None,
    "stream": None,
    "data_dir": None,
    "manual_dir": None,
    "cache_dir": None,
    "method": "aslp",
    "rescale": "smart",
    "scale_init": 1.0,
    "logit_std": None,
    "keep_fraction": None,
    "scope": "global",
    "budget_weight": 10.0,
    "sharpness_init": 100.0,
    "sharpness_scope": "global",
    "signed_constant": "all",
    "constant": "std",
    "bias": "none",
    "augment": True,
    "standardise": False,
    "epochs": 1000,
    "patience": 100,
    "finetune": False,
    "select_by": "thresholding",
    "keep_ties": False,
    "batch_size": 256,
    "micro_batch": None,
    "optimiser": "sgd",
    "schedule": "constant",
    "warmup_epochs": 0,
    "mask_lr": 50.0,
    "scale_lr": 0.001,
    "weight_lr": 0.1,
    "sharpness_lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "temperature": 1.0,
    "temperature_end": None,
    "label_smoothing": 0.0,
    "ema_decay": 0.0,
    "dtype": "float32",
    "eval_samples": 10,
    "seed": 0,
    "devices": None,
    "shard": "none",
    "checkpoint_seconds": 60.0,
}
"""The settings of the paper, where it states them."""

RESUMABLE = {
    "cache_dir",
    "checkpoint_seconds",
    "data",
    "data_dir",
    "devices",
    "epochs",
    "manual_dir",
    "patience",
    "shard",
}
"""Options that may change when a run is resumed."""

DIGITS = {"batch_size": 32, "epochs": 120}

NUMERIC = {
    name: field
    for name, field in FIELDS.items()
    if "int" in str(field.type) or "float" in str(field.type)
}


TINY = " in float32, which makes 0 of it"
NEAR_ONE = "0.99999999999 in float32, which makes 1 of it"


def parsed(line: str) -> Command:
    flags = parse(line.split(), description="A program.", prog="aslp-jax train")
    return flags.command()


def refused(line: str) -> str:
    """The message with which a command line is refused."""
    with pytest.raises(BadInput) as caught:
        parsed(line)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_without_flags_it_is_the_paper() -> None:
    command = parsed("")
    assert command.config.as_dict() == PAPER
    assert command.folder.path.parent == Path("runs")
    assert command.folder.path.name.startswith("cifar10-conv4-aslp-seed0-")
    assert command.resume is False
    assert parsed("--preset paper").config == command.config == Config()


def test_flags_have_the_type_of_their_option() -> None:
    found = parsed(
        "--epochs 3 --mask-lr 2 --seed 4294967295 --no-augment --standardise "
        "--micro-batch 8 --devices 2 --checkpoint-seconds 0 --momentum 0 --out a/b"
    )
    changed = {
        "epochs": 3,
        "mask_lr": 2.0,
        "seed": 4294967295,
        "augment": False,
        "standardise": True,
        "micro_batch": 8,
        "devices": 2,
        "checkpoint_seconds": 0.0,
        "momentum": 0.0,
    }
    assert found.config.as_dict() == {**PAPER, **changed}
    for name, value in changed.items():
        assert type(getattr(found.config, name)) is type(value), name
    assert found.folder.path == Path("a/b")


def test_digits_has_its_own_defaults() -> None:
    small = {"batch_size": 32}
    large = {"epochs": 90}
    given = {"digits": DIGITS, "own": small, "tfds": small, "imagenet": large}
    assert given == DATASET_DEFAULTS
    found = parsed("--dataset digits --preset paper").config.as_dict()
    assert found == {**PAPER, "dataset": "digits", **DIGITS}
    assert parsed("--dataset digits --patience 100").config.as_dict() == found
    for other in ("cifar10", "cifar100", "tiny_imagenet"):
        found = parsed(f"--dataset {other}").config.as_dict()
        assert found == {**PAPER, "dataset": other}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--arch conv2 --seed 3 --eval-samples 2 --devices 1",
        "--micro-batch 8 --checkpoint-seconds 5 --cache-dir elsewhere",
    ],
)
def test_digits_alone_are_trained_by_the_fast_preset(line: str) -> None:
    found, asked = (
        parsed(f"--dataset digits {line} {preset}") for preset in ("", "--preset fast")
    )
    assert found.config == asked.config
    assert (found.config.epochs, found.config.optimiser) == (12, "adam")
    assert found.preset == (
        "fast, the default for digits; --preset paper is the paper's"
    )
    assert asked.preset == ""


def test_the_first_command_of_the_readme_is_short() -> None:
    readme = (EXPERIMENTS.parent / "README.md").read_text()
    line = re.search(r"aslp-jax train (.*--dataset digits.*)", readme)
    assert line is not None
    assert parsed(line[1]).config.epochs == 12


def test_an_option_of_training_leaves_digits_to_the_preset_of_the_paper() -> None:
    machine = {"model_args", "cache_dir", "eval_samples", "seed", "devices"}
    machine |= {"micro_batch", "checkpoint_seconds", "arch", "model", "dataset"}
    for name in FIELDS.keys() - machine:
        chosen = {"dataset": "digits", name: FIELDS[name].default}
        preset, remark = presets.default_preset(chosen)
        assert preset is None
        assert remark == (
            f"paper, as {flag(name)} is given; --preset fast is shorter"
        ), name
    for line in ("", "--dataset cifar10", "--data photos", "--seed 1"):
        assert parsed(line).preset == ""
        assert parsed(line).config.optimiser == "sgd"


@pytest.mark.parametrize("digits_first", [True, False])
def test_flags_win_over_the_defaults_of_digits(digits_first: bool) -> None:
    flags = ["--no-augment --batch-size 64 --epochs 3", "--dataset digits"]
    found = parsed(" ".join(flags[::-1] if digits_first else flags)).config
    assert (found.augment, found.batch_size, found.epochs) == (False, 64, 3)
    # A flag that repeats the paper's value wins as well.
    assert parsed("--data photos").config.batch_size == 32
    found = parsed("--dataset digits --batch-size 256 --epochs 1000").config
    assert (found.augment, found.batch_size, found.epochs) == (True, 256, 1000)


def test_the_released_code_differs_where_the_readme_says() -> None:
    changed = {
        "bias": "uniform",
        "signed_constant": "conv",
        "standardise": True,
        "keep_ties": True,
        "select_by": "sample",
    }
    found = parsed("--preset released_code")
    assert found.config.as_dict() == {**PAPER, **changed}


@pytest.mark.parametrize(
    "line",
    [
        "--preset released_code --bias none --no-standardise --epochs 5",
        "--epochs 5 --no-standardise --bias none --preset released_code",
        "--bias none --preset released_code --epochs 5 --no-standardise",
    ],
)
def test_a_flag_wins_over_the_preset_in_any_order(line: str) -> None:
    found = parsed(line).config
    assert (found.bias, found.standardise, found.epochs) == ("none", False, 5)
    assert (found.signed_constant, found.keep_ties) == ("conv", True)


def test_a_preset_gives_a_method_only_what_it_knows() -> None:
    fast = parsed("--preset fast --method edge_popup").config
    assert (fast.scale_init, fast.mask_lr, fast.optimiser) == (1.0, 1e-3, "adam")
    assert parsed("--preset fast").config.scale_init == 1.2
    digits = parsed("--preset fast --dataset digits").config
    assert (digits.epochs, digits.batch_size) == (12, 16)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", (1.0, 50.0, 50.0, 64)),
        ("--method supermask", (0.5, 10.0, 1.0, 64)),
        ("--method signed", (0.5, 10.0, 1.0, 64)),
        ("--method edge_popup", (1e-3, Config.logit_std, 1.0, 64)),
        ("--dataset digits", (0.5, 10.0, 1.0, 16)),
        ("--dataset digits --method edge_popup", (1e-3, Config.logit_std, 1.0, 16)),
        ("--data photos", (1.0, 50.0, 50.0, 32)),
        ("--dataset tfds:flowers --data-dir images", (1.0, 50.0, 50.0, 32)),
        ("--dataset imagenet --data-dir images", (1.0, 50.0, 50.0, 256)),
    ],
)
def test_the_fast_recipe_was_found_for_aslp_on_photographs(line, expected) -> None:
    found = parsed(f"--preset fast {line}").config
    assert (
        found.mask_lr,
        found.logit_std,
        found.temperature,
        found.batch_size,
    ) == expected


def test_the_released_code_standardises_only_what_it_augments() -> None:
    assert parsed("--preset released_code").config.standardise
    assert not parsed("--preset released_code --no-augment").config.standardise
    line = "--preset released_code --no-augment --standardise"
    assert parsed(line).config.standardise


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--method edge_popup --rescale smart", "valid: none, fan"),
        ("--rescale fan", "--rescale fan means nothing to --method aslp; valid: none"),
        ("--weight-lr 0.3", "--weight-lr means nothing to --method aslp"),
        ("--method magnitude --budget-weight 1", "budget-weight means nothing to"),
        ("--method supermask --temperature 2", "--temperature means nothing to"),
        ("--method edge_popup --keep-fraction 0", "--keep-fraction must be above 0"),
        ("--method edge_popup --keep-fraction 1.1", "must be at most 1, got 1.1"),
    ],
)
def test_what_means_nothing_to_a_method_is_refused(line: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parsed(line)


def test_each_method_has_a_rescale_of_its_own_to_start_from() -> None:
    assert parsed("--method supermask").config.rescale == "dynamic"
    assert parsed("--method supermask").config.select_by == "sample"
    assert parsed("--method supermask --preset paper").config.select_by == "sample"
    assert parsed("--method edge_popup").config.rescale == "none"


def test_epochs_are_fixed_where_the_learning_rate_follows_them(resumed: Any) -> None:
    resumed(schedule="cosine", epochs=5)
    assert "a run with --epochs 5, not 6" in refused("--resume --out run --epochs 6")
    resumed(temperature_end=0.5, epochs=5)
    assert "a run with --epochs 5, not 6" in refused("--resume --out run --epochs 6")
    resumed(epochs=5)
    assert parsed("--resume --out run --epochs 6").config.epochs == 6


def test_some_epochs_come_after_the_warm_up() -> None:
    assert refused("--epochs 3 --warmup-epochs 3") == (
        "--warmup-epochs 3 leaves none of the 3 epochs; it must be fewer than --epochs"
    )
    assert parsed("--epochs 3 --warmup-epochs 2").config.warmup_epochs == 2


def test_the_methods_are_those_of_the_library() -> None:
    assert list(RESCALES) == list(METHOD_OPTIONS) == list(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_made_of_exactly_its_own_options(method: str) -> None:
    kind: Any = METHODS[method]
    taken = METHOD_OPTIONS[method]
    assert set(taken) == {field.name for field in dataclasses.fields(kind)}
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(FIELDS)
    for name, field in FIELDS.items():
        methods = field.metadata.get("methods", tuple(METHODS))
        if name in taken:
            assert method in methods, name


def test_presets_hold_valid_values() -> None:
    assert set(PRESETS) == {"paper", "released_code", "fast", "edge_popup"}
    for values in PRESETS.values():
        check(Config(**values))


def test_every_option_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    # argparse breaks lines at hyphens, too.
    text = " ".join(help_text(capsys).split()).replace("- ", "-")
    assert text.startswith("usage: aslp-jax train [-h]")
    assert "A program." in text
    text = text[text.index(" options: ") :]
    assert "sha256" not in text
    for name, field in FIELDS.items():
        if name == "model_sha256":  # it follows from --model
            continue
        words = field.metadata["help"]
        if field.default is not None or "none" in field.metadata:
            words = f"{words} (default: "
        assert "(default: " in words, name
        assert f" {flag(name)}" in text
        assert f" {words}".replace("- ", "-") in text, name
    for entry in (
        # A choice, with a default of its own for some methods.
        "--rescale {none,smart,dynamic,fan} ",
        "(default: smart; supermask: dynamic; edge_popup: none; budget: none; "
        "magnitude: none)",
        # A number, whole or not, and one that a data set changes.
        "--temperature X temperature of the Gumbel-Softmax; shapes the gradient, never "
        "the sample (default: 1.0)",
        "--batch-size N images a step, over all devices (default: 256; digits: 32; "
        "own: 32; tfds: 32)",
        # Two flags, and None with a meaning.
        "--keep-fraction X, --keep X fraction of the weights to keep, in (0, 1] "
        "(default: no constraint; edge_popup: 0.5; budget: 0.1; magnitude: 0.1)",
        "--augment, --no-augment random crops",
        "flips (default: on)",
        "--dataset NAME images: digits (comes with the package",
        "--data-dir FOLDER folder of prepared TFDS data sets",
        "--preset {paper,released_code,fast,edge_popup}",
        "--out FOLDER",
        "--resume",
    ):
        assert entry in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--processes 2", "--processes needs --distributed"),
        ("--distributed --coordinator node1", "node1 is no HOST:PORT"),
        ("--distributed --coordinator :5000", ":5000 is no HOST:PORT"),
        ("--distributed --coordinator ::1:5000", "::1:5000 is no HOST:PORT; an IPv6"),
        ("--distributed --coordinator a:65536", "a:65536 has no port from 1 to 65535"),
        ("--distributed --join-seconds 0", "--join-seconds must be from 1 to"),
        (
            "--distributed --processes 2 --process-index 2",
            "--process-index must be below --processes 2, got 2",
        ),
    ],
)
def test_what_cannot_be_of_several_processes_is_refused(
    line: str, message: str
) -> None:
    assert message in refused(line)


def test_processes_of_a_run() -> None:
    assert parse([], description="").cluster is None
    line = "--distributed --coordinator [::1]:5000 --process-index 0"
    found = parse(line.split(), description="").cluster
    assert found is not None
    assert (found.coordinator, found.process_index) == ("[::1]:5000", 0)
    assert found.join_seconds == 300
    assert found.missing == ["--processes N"]


def test_unknown_flags_are_refused() -> None:
    assert "--colour" in refused("--colour red")
    assert "extra" in refused("--epochs 3 extra")


@pytest.mark.parametrize(
    "line", ["--arc conv2", "--res", "--e 3", "--batch 32", "--no-aug", "--prese paper"]
)
def test_abbreviations_are_refused(line: str) -> None:
    assert line.split()[0] in refused(line)


@pytest.mark.parametrize(
    "name", [*(n for n, f in FIELDS.items() if "choices" in f.metadata), "preset"]
)
def test_unknown_names_are_refused(name: str) -> None:
    message = refused(f"{flag(name)} other")
    assert flag(name) in message
    assert "'other'" in message
    valid = PRESETS if name == "preset" else FIELDS[name].metadata["choices"]
    for choice in valid:
        assert choice in message


def test_budgets_of_single_layers_weigh_more():
    for method in ("aslp", "supermask", "signed"):
        for scope, weight in (("global", 10), ("layer", 100)):
            asked = {"method": method, "keep_fraction": 0.1, "scope": scope}
            assert presets.resolve("fast", asked).budget_weight == weight
            chosen = presets.resolve("fast", asked | {"budget_weight": 3.0})
            assert chosen.budget_weight == 3
    asked = {"method": "magnitude", "scope": "layer"}
    assert presets.resolve("fast", asked).budget_weight == Config.budget_weight


def test_presets_train_weights_that_are_not_of_one_magnitude():
    for preset in (None, "paper", "fast"):
        for method in ("budget", "magnitude"):
            chosen = presets.resolve(preset, {"method": method})
            assert chosen.signed_constant == "none"
            assert chosen.optimiser == "sgd" and chosen.momentum == 0.9
    for preset in ("paper", "released_code"):
        for method, selected in (("magnitude", "sample"), ("budget", "thresholding")):
            chosen = presets.resolve(preset, {"method": method})
            assert (chosen.select_by, chosen.signed_constant) == (selected, "none")
    fast = presets.resolve("fast", {"method": "budget", "dataset": "digits"})
    assert (fast.weight_lr, fast.sharpness_lr, fast.budget_weight) == (0.05, 0.01, 500)


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_without_its_value_is_refused(name: str) -> None:
    if "bool" in str(FIELDS[name].type):
        assert flag(name) in refused(f"{flag(name)}=yes")
    else:
        assert flag(name) in refused(flag(name))


def test_every_number_has_a_lower_bound() -> None:
    assert {"epochs", "mask_lr", "seed", "momentum", "checkpoint_seconds"} < set(
        NUMERIC
    )
    for name, field in NUMERIC.items():
        assert {"above", "least"} & set(field.metadata), name


# One option of each kind: the bounds themselves are looked at above.
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--epochs=0", "--epochs must be at least 1, got 0"),
        ("--seed=-1", "--seed must be at least 0, got -1"),
        ("--micro-batch=-1", "--micro-batch must be at least 1, got -1"),
        ("--mask-lr=0", "--mask-lr must be above 0, got 0.0"),
        ("--mask-lr=-0.5", "--mask-lr must be above 0, got -0.5"),
        ("--weight-decay=-0.5", "--weight-decay must be at least 0, got -0.5"),
        ("--label-smoothing=1", "--label-smoothing must be below 1, got 1.0"),
        ("--logit-std=-1", "--logit-std must be at least 0, got -1.0"),
        ("--mask-lr=nan", "--mask-lr must be a finite number, got nan"),
        ("--mask-lr=inf", "--mask-lr must be a finite number, got inf"),
        ("--logit-std=-inf", "--logit-std must be a finite number, got -inf"),
        ("--momentum=1e999", "--momentum must be a finite number, got inf"),
        ("--mask-lr=3.5e38", "--mask-lr must be a finite number, got 3.5e+38"),
        # As float32 has them: XLA takes a number this small as 0.
        ("--temperature=1e-38", "--temperature must be above 0, got 1e-38" + TINY),
        ("--keep=1e-300", "--keep-fraction must be above 0, got 1e-300" + TINY),
        (
            "--momentum=0.99999999999",
            "--momentum must be below 1, got 0.99999999999"
            + TINY.replace("makes 0", "makes 1"),
        ),
        ("--epochs=2147483648", "--epochs must be at most 2147483647, got 2147483648"),
        (
            "--devices=9999999999",
            "--devices must be at most 2147483647, got 9999999999",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(line: str, words: str) -> None:
    assert refused(line) == words


@pytest.mark.parametrize(
    "name",
    [n for n, field in NUMERIC.items() if field.metadata.get("least") == 0],
)
def test_zero_is_valid_where_it_is_the_bound(name: str) -> None:
    assert getattr(parsed(f"{flag(name)} 0").config, name) == 0


@pytest.mark.parametrize("value", ["ten", "", "1,5", "0x10", "1e", "-", "nan", "1.5"])
def test_what_is_no_whole_number_is_refused(value: str) -> None:
    message = refused(f"--epochs={value}")
    assert "--epochs" in message
    assert f"invalid int value: {value!r}" in message


@pytest.mark.parametrize("value", ["ten", "", "1,5", "0x10", "1e", "-"])
def test_what_is_no_number_is_refused(value: str) -> None:
    message = refused(f"--mask-lr={value}")
    assert "--mask-lr" in message
    assert f"invalid float value: {value!r}" in message


def test_every_number_is_read_as_its_kind() -> None:
    for name, field in NUMERIC.items():
        kind = "int" if "int" in str(field.type) else "float"
        assert f"{flag(name)}" in refused(f"{flag(name)}=ten")
        assert f"invalid {kind} value" in refused(f"{flag(name)}=ten"), name


def test_upper_bounds() -> None:
    assert "--seed must be at most 4294967295, got 4294967296" in refused(
        "--seed 4294967296"
    )
    assert "--momentum must be below 1, got 1.0" in refused("--momentum 1")
    assert parsed("--momentum 0.999").config.momentum == 0.999


def test_values_that_no_flag_brought_are_checked_too() -> None:
    with pytest.raises(BadInput, match=r"--arch must be one of conv2.*, got 'vgg"):
        check(Config(arch="vgg"))
    with pytest.raises(BadInput, match=r"--epochs must be at least 1, got 0"):
        check(Config(epochs=0))
    check(Config(mask_lr=2))  # JSON knows one kind of number


def test_an_empty_value_is_refused() -> None:
    assert "--image-size is empty" in refused("--data=x --image-size=")
    assert "--model-args is empty" in refused("--model-args=")
    for name in ("dataset", "arch", "model"):
        assert flag(name) in refused(f"{flag(name)}=")


def test_a_home_folder_is_found_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("data_dir", "manual_dir", "cache_dir"):
        line = f"--dataset cifar10 {flag(name)}=~/x"
        assert getattr(parsed(line).config, name) == "/home/me/x"
    assert parsed("--data=~/x").config.data == "/home/me/x"
    assert parsed("--out=~/run").folder.path == Path("/home/me/run")
    for name in ("--out", "--data", "--cache-dir"):
        words = "there is no home folder for ~nobody-of-this-name/x"
        assert words in refused(f"{name}=~nobody-of-this-name/x")


def test_an_empty_folder_is_not_the_working_folder() -> None:
    for name in ("--out", "--data", "--data-dir", "--manual-dir", "--cache-dir"):
        assert f"{name}: the path is empty" in refused(f"{name}=")


def test_one_folder_of_images_at_most() -> None:
    message = refused("--data-dir a --manual-dir b")
    assert "--data-dir" in message
    assert "--manual-dir" in message
    assert "not both" in message


@pytest.mark.parametrize("folder", ["--data-dir", "--manual-dir"])
def test_digits_takes_no_folder(folder: str) -> None:
    assert "digits" in refused(f"--dataset digits {folder} a")
    assert parsed(f"{folder} a").config.dataset == "cifar10"


def test_tiny_imagenet_takes_the_official_folder_alone() -> None:
    line = "--dataset tiny_imagenet"
    assert refused(f"{line} --data-dir a") == (
        f"{line} is not in TFDS; give --manual-dir, not --data-dir"
    )
    assert parsed(f"{line} --manual-dir a").config.manual_dir == "a"


def test_fashion_mnist_needs_a_folder() -> None:
    line = "--dataset fashion_mnist"
    assert refused(line).startswith(
        f"{line} needs --manual-dir, a folder with the four"
    )
    for given in ("--manual-dir", "--data-dir"):
        assert parsed(f"{line} {given} a").config.dataset == "fashion_mnist"


def test_data_sets_of_tfds_need_their_folder() -> None:
    line = "--dataset tfds:eurosat/rgb"
    assert refused(line).startswith(f"{line} needs --data-dir, the folder in which TF")
    assert refused(f"{line} --manual-dir a").startswith(f"{line} needs --data-dir")
    config = parsed(f"{line} --data-dir a --image-size 32").config
    assert (config.dataset, config.image_size) == ("tfds:eurosat/rgb", "32")
    assert (config.dataset_name, config.batch_size) == ("eurosat-rgb", 32)
    assert config.of_files and not parsed("--dataset digits").config.of_files
    message = refused("--dataset tdfs:eurosat --data-dir a")
    assert message == (
        "--dataset must be one of digits, cifar10, cifar100, fashion_mnist, "
        "tiny_imagenet, imagenet, own, tfds:NAME, got 'tdfs:eurosat'"
    )
    message = refused("--dataset cifar10 --image-size 16")
    assert message.startswith("--image-size resizes the images of --data, --dataset t")


def test_imagenet_is_streamed_from_its_folder() -> None:
    line = "--dataset imagenet"
    for given in ("", "--manual-dir a"):
        message = refused(f"{line} {given}")
        assert message.startswith(f"{line} needs --data-dir, the folder in which TFDS")
    assert refused(f"{line} --data-dir a --no-stream").startswith(
        f"{line} is always streamed, because"
    )
    config = parsed(f"{line} --data-dir a --image-size 64 --arch resnet50").config
    assert (config.epochs, config.stream, config.of_files) == (90, None, True)
    assert config.dataset_name == "imagenet"


def test_images_in_memory_are_not_streamed() -> None:
    for dataset in ("digits", "cifar10"):
        assert refused(f"--dataset {dataset} --stream") == (
            "--stream reads the images of --data FOLDER, --dataset tfds:NAME or "
            f"imagenet; those of {dataset} are held in memory"
        )
        assert parsed(f"--dataset {dataset} --no-stream").config.stream is False
    assert parsed("--data a --image-size 8 --stream").config.stream is True


def test_the_data_sets_are_those_of_the_library() -> None:
    assert FIELDS["dataset"].metadata["choices"] == (*NAMES, IMAGENET, "own")


def test_resuming_needs_the_folder() -> None:
    message = refused("--resume")
    assert "--resume" in message
    assert "--out" in message


SAVED = Config(
    arch="conv2",
    dataset="digits",
    augment=False,
    epochs=7,
    seed=3,
    mask_lr=20.0,
    micro_batch=8,
).as_dict()


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the config.json of a run in `run`."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()

    def write(**options: Any) -> None:
        saved = {"options": {**Config().as_dict(), **options}}
        Path("run/config.json").write_text(json.dumps(saved))

    write(**SAVED)
    return write


@pytest.mark.usefixtures("resumed")
def test_a_resumed_run_keeps_its_options() -> None:
    command = parsed("--resume --out run")
    assert command.resume is True
    assert command.folder.path == Path("run")
    # Neither the defaults nor those of its data set come back.
    assert command.config.as_dict() == SAVED


@pytest.mark.usefixtures("resumed")
def test_repeating_the_options_of_a_resumed_run_is_fine() -> None:
    line = "--resume --out run --arch conv2 --seed 3 --mask-lr 20 --no-augment"
    assert parsed(line).config.as_dict() == SAVED


@pytest.mark.usefixtures("resumed")
@pytest.mark.parametrize(
    ("line", "name", "old", "new"),
    [
        ("--arch conv4", "--arch", "conv2", "conv4"),
        ("--seed 4", "--seed", "3", "4"),
        ("--seed 0", "--seed", "3", "0"),
        ("--mask-lr 50", "--mask-lr", "20.0", "50.0"),
        ("--batch-size 32", "--batch-size", "256", "32"),
        ("--micro-batch 4", "--micro-batch", "8", "4"),
        ("--dataset cifar10", "--dataset", "digits", "cifar10"),
        ("--preset released_code", "--signed-constant", "all", "conv"),
    ],
)
def test_a_resumed_run_cannot_become_another(
    line: str, name: str, old: str, new: str
) -> None:
    message = refused(f"--resume --out run {line}")
    assert "run " in message
    if "preset" in line:
        assert "as by --preset released_code; drop --preset, or choose" in message
        assert any(flag(option) in message for option in PRESETS["released_code"])
    else:
        assert f"{name} {old}, not {new}; drop the flag, or choose" in message


def test_a_run_of_the_released_code_does_not_become_the_papers(resumed: Any) -> None:
    resumed(**{**SAVED, **PRESETS["released_code"]})
    refused("--resume --out run --preset paper")


@pytest.mark.usefixtures("resumed")
def test_what_changes_no_step_may_change() -> None:
    found = {name for name, field in FIELDS.items() if field.metadata.get("resumable")}
    assert found == RESUMABLE
    line = "--epochs 9 --patience 2 --devices 1 --checkpoint-seconds 1 --cache-dir c"
    config = parsed(f"--resume --out run {line}").config.as_dict()
    assert config == {
        **SAVED,
        "epochs": 9,
        "patience": 2,
        "devices": 1,
        "checkpoint_seconds": 1.0,
        "cache_dir": "c",
    }


def test_a_saved_value_is_checked_again(resumed: Any) -> None:
    resumed(epochs=0)
    message = refused("--resume --out run")
    assert "--epochs must be at least 1, got 0" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "many"),
        ("epochs", None),
        ("epochs", True),
        ("mask_lr", [1.0]),
        ("augment", "yes"),
    ],
)
def test_a_saved_value_of_another_type_is_refused(
    resumed: Any, name: str, value: Any
) -> None:
    resumed(**{name: value})
    message = refused("--resume --out run")
    assert flag(name) in message


def test_bad_input_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/cifar.py", "--epochs", "0"])

    def main(arguments: list[str]) -> int:
        parse(arguments, description="").command()
        return 0

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 2
    page = "docs/training.md#options"
    words = f"cifar.py: --epochs must be at least 1, got 0; see {page}\n"
    assert capsys.readouterr() == ("", words)

    monkeypatch.setattr(sys, "argv", ["cifar.py"])
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 0


def test_ctrl_c_outside_of_training_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cifar.py"])

    def main(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "cifar.py: interrupted\n")


LOADED = """
import sys
sys.argv = {arguments!r}
try:
    {statement}
except SystemExit as stop:
    print("code", stop.code)
heavy = {{"jax", "jaxlib", "flax", "optax", "orbax", "numpy", "matplotlib"}}
print("loaded", sorted(heavy & set(sys.modules)))
"""

SCRIPT = "import runpy; runpy.run_path({program!r}, run_name='__main__')"
COMMAND = "from aslp_jax.cli.main import main; raise SystemExit(main())"


@pytest.mark.parametrize(
    ("statement", "arguments", "code", "words"),
    [
        ("import aslp_jax.trainer.summary, aslp_jax.cli.train", ["x"], None, ""),
        (SCRIPT, ["cifar.py", "--help"], 0, "usage: cifar.py [-h]"),
        (SCRIPT, ["cifar.py", "--epochs", "x"], 2, ""),
        (COMMAND, ["aslp-jax", "train", "--help"], 0, "usage: aslp-jax train [-h]"),
        (COMMAND, ["aslp-jax", "--help"], 0, "usage: aslp-jax COMMAND"),
    ],
)
def test_flags_are_read_before_jax(
    statement: str, arguments: list[str], code: int | None, words: str
) -> None:
    program = LOADED.format(
        arguments=arguments,
        statement=statement.format(program=str(EXPERIMENTS / "cifar.py")),
    )
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert child.stdout.splitlines()[-1] == "loaded []"
    assert child.stdout.startswith(words)
    if code is not None:
        assert f"code {code}" in child.stdout.splitlines()
    if code == 0:
        for number, meaning in EXIT_CODES.items():
            assert f"  {number:<4} {meaning}\n" in child.stdout
    assert child.stderr.count("\n") == (1 if code == 2 else 0)


def test_the_page_of_errors_has_the_list_of_the_commands() -> None:
    text = (EXPERIMENTS.parent / "docs" / "what_can_go_wrong.md").read_text()
    table = text.split("\n## Exit codes\n")[1].split("\n## ")[0]
    found = re.findall(r"(?m)^\| (\d+) \| (.*) \|$", table)
    assert {int(code): meaning for code, meaning in found} == EXIT_CODES


def test_the_page_lists_the_exit_codes() -> None:
    text = (EXPERIMENTS.parent / "docs" / "training.md").read_text()
    table = text.split("\n## Exit codes\n")[1].split("\n## ")[0]
    cells = re.findall(r"(?m)^\| ([\d, ]+) \|", table)
    assert [int(code) for cell in cells for code in cell.split(", ")] == [*EXIT_CODES]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--dataset digits",
        "--dataset digits --epochs 1000 --batch-size 256 --keep 0.1",
        "--preset fast --dataset digits --method supermask --no-augment",
        "--preset released_code --standardise --no-augment",
        "--preset edge_popup --seed 4294967295 --mask-lr 0.30000000000000004",
        "--method budget --keep 0.05 --signed-constant all",
        "--method magnitude --finetune --select-by thresholding",
        "--method supermask --select-by thresholding --rescale smart",
        "--method signed --keep 0.1 --scope layer --budget-weight 10",
        "--data photos --image-size 24x32 --batch-size 256",
        "--dataset tfds:beans --data-dir a/b --image-size 32 --devices 1",
    ],
)
def test_flags_give_the_options_of_a_run_again(line: str) -> None:
    config = parsed(line).config
    words = presets.as_flags(config)
    assert parse(words, description="").command().config == config
    assert all(word for word in words)

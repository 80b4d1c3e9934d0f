"""The program as a person meets it: its files, its messages, its exit codes.

Whole runs take seconds each, even with few images: most is tracing and compiling. Many
tests look at the same few runs. What kills a process gets one of its own; all else runs
in one warm process, which imports JAX once and finds programs of the same options
compiled.
"""

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from aslp_jax import checkpoint
from aslp_jax._claim import claim
from aslp_jax.data import datasets
from aslp_jax.trainer.options import FIELDS, Config
from aslp_jax.trainer.results import EpochRow
from tests.trainer import events
from tests.webpage import pages

pytestmark = pytest.mark.program

PROGRAM = str(Path(__file__).parents[2] / "experiments" / "cifar.py")
SMALL = "--data digits.npz --arch conv2 --batch-size 32 --eval-samples 3"
LAYERS = ["Conv_0/kernel", "Conv_1/kernel", *(f"Dense_{i}/kernel" for i in range(3))]
STEPS = 4  # of an epoch: 144 images, of which 14 are for validation; 32 at a time
EPOCHS = 4
TIMES = {"seconds", "images_per_second"}


class Ended(NamedTuple):
    """What a process that ended left behind."""

    code: int
    out: str
    err: str


# Runs the program as often as it is asked to: one JSON list of arguments a line.
WARM = """
import json, os, runpy, sys, tempfile, traceback

answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    sys.argv = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    print(json.dumps([code, *texts]), file=answers, flush=True)
"""

# Lets no file grow beyond so many bytes, as on a full disk.
LIMITED = """
import resource, runpy, signal, sys

limit = int(sys.argv[1])
sys.argv = [{program!r}, *sys.argv[2:]]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""

# Saves the initial state of a run.
INITIAL = """
import sys

from aslp_jax import checkpoint
from aslp_jax._claim import claim
from aslp_jax.data import own
from aslp_jax.trainer.compilation_cache import enable_compilation_cache
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_state import Run

enable_compilation_cache()
config = Config(**{options!r})
run = Run(config, own.load(config.data))
checkpoint.save(sys.argv[1], 0, run.snapshot(), {{}})
"""

# Gets a signal in the middle of its second epoch.
INTERRUPTED = """
import os, runpy, signal, sys

sys.argv = [{program!r}, *sys.argv[1:]]
from aslp_jax.trainer import loop
from aslp_jax.trainer.run_state import Run

chunk, loop._CHUNK_SECONDS = loop._CHUNK_SECONDS, 0  # one step at a time
account = Run.account

def account_and_stop(self, *arguments, **options):
    found = account(self, *arguments, **options)
    if (self.position.epoch, self.position.step) == (1, 1):
        os.kill(os.getpid(), signal.{name})
    return found

Run.account = account_and_stop
# A shell that starts the tests in the background has SIGINT ignored; nohup, SIGHUP.
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    Run.account, loop._CHUNK_SECONDS = account, chunk
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that programs run in, which holds `digits.npz`."""
    folder, data = tmp_path_factory.mktemp("work"), few_digits()
    np.savez(
        folder / "digits.npz",
        x_train=data.train_images,
        y_train=data.train_labels,
        x_test=data.test_images,
        y_test=data.test_labels,
    )
    return folder


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, program_flags: str
) -> dict[str, str]:
    """One device, an empty home, and no way into the network."""
    home = tmp_path_factory.mktemp("home")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XLA_", "JAX_")) and not name.lower().endswith("_proxy")
    }
    nowhere = "http://127.0.0.1:9"
    return {
        **kept,
        "HOME": str(home),
        # All but the first run find their programs compiled.
        "XDG_CACHE_HOME": str(home / "cache"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": program_flags,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }


@pytest.fixture(scope="module")
def program(environment: dict[str, str], work: Path) -> Callable[..., Ended]:
    """Runs the program, or a script, in a process of its own."""

    def run(line: str, *, script: str | None = None, **variables: str) -> Ended:
        start = [PROGRAM] if script is None else ["-c", script]
        ended = subprocess.run(
            [sys.executable, *start, *line.split()],
            cwd=work,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="module")
def warm(
    environment: dict[str, str],
    work: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Ended]]:
    """Runs the program, or a script, in a process that imports JAX once."""
    place = tmp_path_factory.mktemp("scripts")
    child = subprocess.Popen(
        [sys.executable, "-c", WARM],
        cwd=work,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(line: str, *, script: str | None = None) -> Ended:
        path = PROGRAM
        if script is not None:
            (place / "script.py").write_text(script)
            path = str(place / "script.py")
        child.stdin.write(json.dumps([path, *line.split()]) + "\n")
        child.stdin.flush()
        return Ended(*json.loads(child.stdout.readline()))

    with child:
        yield run
        child.stdin.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(warm: Callable[..., Ended], runs: Path) -> tuple[Path, Ended]:
    """A run that nothing interrupted, its two newest checkpoints an epoch apart."""
    out = runs / "whole"
    ended = warm(f"{SMALL} --epochs {EPOCHS} --checkpoint-seconds 0 --out {out}")
    return out, ended


@pytest.fixture
def copy(whole: tuple[Path, Ended], tmp_path: Path) -> Path:
    """The finished run once more, to be spoilt."""
    return Path(shutil.copytree(whole[0], tmp_path / "copy"))


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name not in TIMES}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def options(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())["options"]


def few_digits() -> datasets.Dataset:
    """A few of the digits, every second pixel of them."""
    digits = datasets.load("digits")
    return dataclasses.replace(
        digits,
        train_images=digits.train_images[:144, ::2, ::2],
        train_labels=digits.train_labels[:144],
        test_images=digits.test_images[:100, ::2, ::2],
        test_labels=digits.test_labels[:100],
        validation=14,
    )


def small() -> Config:
    """The options of `SMALL`, of one device."""
    return Config(
        dataset="own", data="digits.npz", arch="conv2", batch_size=32, devices=1
    )


@functools.cache
def like() -> dict[str, Any]:
    """Structure, shapes and dtypes of a snapshot.

    Not its values: this process compiles with other flags than a run does.
    """
    from aslp_jax.trainer.run_state import Run

    return jax.device_get(Run(small(), few_digits()).snapshot())


@pytest.fixture(scope="module")
def initial(warm: Callable[..., Ended], runs: Path) -> dict[str, Any]:
    """Snapshot of a run before its first step."""
    script = INITIAL.format(options=small().as_dict())
    ended = warm(str(runs / "initial"), script=script)
    assert ended.code == 0, ended.err
    return checkpoint.restore(runs / "initial", 0, like(), {})


def saved(folder: Path, step: int) -> dict[str, Any]:
    """The arrays of a checkpoint, times left out."""
    path = folder / "checkpoints"
    identity = json.loads((path / str(step) / "manifest.json").read_text())["identity"]
    fixed = {
        name: value
        for name, value in options(folder).items()
        if not FIELDS[name].metadata.get("resumable")
        # Older versions lack what was added, and it says nothing at its default.
        and not (FIELDS[name].metadata.get("added") and value == FIELDS[name].default)
    }
    hashes = {name: identity[name] for name in ("images_sha256", "labels_sha256")}
    assert identity == {**fixed, **hashes}
    assert {len(each) for each in hashes.values()} == {64}
    tree = checkpoint.restore(path, step, like(), identity)
    del tree["position"]["seconds"]
    return tree


def assert_same_arrays(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        left, right = np.asarray(left), np.asarray(right)
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


def assert_same_run(folder: Path, other: Path) -> None:
    """Asserts that two runs went the same way, bit for bit; only times may differ."""
    assert [*map(timeless, rows(folder))] == [*map(timeless, rows(other))]
    assert timeless(result(folder)) == timeless(result(other))
    last = STEPS * EPOCHS
    assert checkpoint.steps(folder / "checkpoints")[-1] == last
    assert_same_arrays(saved(folder, last), saved(other, last))


def content(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, or that it is a file, or that it is not there."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def only_line(ended: Ended) -> str:
    """The one line of a refusal."""
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert ended.err.startswith("cifar.py: ")
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


# --- A run that ends well. ------------------------------------------------------------


@pytest.mark.slow
def test_a_run_describes_itself(whole: tuple[Path, Ended]) -> None:
    folder, ended = whole
    assert ended.code == 0, ended.err
    found = json.loads((folder / "config.json").read_text())
    wanted = Config(
        dataset="own",
        data="digits.npz",
        arch="conv2",
        batch_size=32,
        eval_samples=3,
        epochs=EPOCHS,
        checkpoint_seconds=0.0,
    )
    assert found["options"] == wanted.as_dict()
    assert found["command"][:3] == ["cifar.py", "--data", "digits.npz"]
    assert found["command"][-2:] == ["--out", str(folder)]
    assert found["device"] == "1 x cpu"
    version = ".".join(map(str, sys.version_info[:3]))
    assert found["versions"]["python"] == version
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert {"aslp-jax", "flax", "jaxlib", "optax"} < set(found["versions"])
    # None where there is no git repository around the program.
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    assert set(os.listdir(folder)) == {
        "checkpoints",
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "network.aslp",
        "report.html",
        "result.json",
    }
    assert checkpoint.steps(folder / "checkpoints") == [
        STEPS * (EPOCHS - 1),
        STEPS * EPOCHS,
    ]


@pytest.mark.slow
def test_compiled_programs_are_kept(
    whole: tuple[Path, Ended], environment: dict[str, str]
) -> None:
    [folder] = (Path(environment["XDG_CACHE_HOME"]) / "aslp-jax/compiled").iterdir()
    assert any(path.name.startswith("jit_steps") for path in folder.iterdir())


@pytest.mark.slow
def test_every_epoch_has_its_row(whole: tuple[Path, Ended]) -> None:
    found = rows(whole[0])
    assert [row["epoch"] for row in found] == list(range(1, EPOCHS + 1))
    assert [row["step"] for row in found] == [STEPS * row["epoch"] for row in found]
    best, best_epoch, before = -1.0, 0, 0.0
    for row in found:
        assert list(row) == [*EpochRow.from_json(row).to_json()]
        if row["validation_accuracy"] > best:
            best, best_epoch = row["validation_accuracy"], row["epoch"]
        assert row["best_validation_accuracy"] == best
        assert row["best_epoch"] == best_epoch
        for name in ("train_accuracy", "validation_accuracy", "flip_rate"):
            assert 0 <= row[name] <= 1, name
        assert 0 < row["keep_fraction"] < 1
        assert list(row["keep_fractions"]) == LAYERS
        assert all(0 <= kept <= 1 for kept in row["keep_fractions"].values())
        assert list(row["scalars"]) == ["scale"]
        assert list(row["scalars"]["scale"]) == LAYERS
        assert np.isfinite([row["train_loss"], row["validation_loss"]]).all()
        assert row["images_per_second"] > 0
        assert row["seconds"] > before
        before = row["seconds"]
    # It learns: the masks move, and so do the scales.
    assert found[0]["flip_rate"] > 0.01
    assert found[-1]["scalars"] != found[0]["scalars"]


@pytest.mark.slow
def test_the_result_is_of_the_best_epoch(whole: tuple[Path, Ended]) -> None:
    found, row = result(whole[0]), rows(whole[0])[-1]
    for name in ("thresholding", "averaging_mean", "single"):
        assert 0 <= found[name] <= 1, name
    assert 0 <= found["averaging_std"] <= 0.5
    assert found["best_epoch"] == row["best_epoch"]
    assert found["best_validation_accuracy"] == row["best_validation_accuracy"]
    best = rows(whole[0])[found["best_epoch"] - 1]
    assert found["keep_fraction"] == best["keep_fraction"]
    assert found["keep_fractions"] == best["keep_fractions"]
    assert found["scalars"] == best["scalars"]
    assert list(found["keep_fractions"]) == LAYERS
    assert found["seconds"] >= row["seconds"]
    assert (found["epochs"], found["stopped"]) == (EPOCHS, "epochs")
    assert (found["seed"], found["eval_samples"]) == (0, 3)
    assert (found["arch"], found["dataset"], found["method"]) == (
        "conv2",
        "digits",
        "aslp",
    )
    assert list(found["weights"]) == LAYERS
    count = sum(found["weights"].values())
    assert found["dense_bytes"] == 4 * count
    assert found["mask_bytes"] == count / 8
    kept = sum(found["weights"][at] * found["keep_fractions"][at] for at in LAYERS)
    assert kept / count == pytest.approx(found["keep_fraction"], abs=1e-6)


@pytest.mark.slow
def test_the_curves_open(whole: tuple[Path, Ended]) -> None:
    with Image.open(whole[0] / "curves.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 300


@pytest.mark.slow
def test_the_report_says_what_the_run_says(whole: tuple[Path, Ended]) -> None:
    page = pages.check((whole[0] / "report.html").read_text())
    found = result(whole[0])
    assert page.one("h1").text == "aslp on conv2, digits, seed 0"
    facts = pages.facts(page)
    assert facts["Test accuracy"] == f"{found['thresholding']:.2%} thresholding"
    layers = pages.tables(page)["Layers of the network, best state"]
    assert [row["layer"] for row in layers] == LAYERS
    again, given = [each.text for each in page.all("pre")]
    assert "--data digits.npz" in again and f"--out {whole[0]}" in given


@pytest.mark.slow
def test_a_log_gets_one_plain_line_an_epoch(whole: tuple[Path, Ended]) -> None:
    lines = whole[1].err.splitlines()
    assert str(whole[0]) in lines[0]
    assert "digits" in lines[0]
    assert [line[:9] for line in lines[1:]] == [
        f"epoch {epoch}/{EPOCHS}" for epoch in range(1, EPOCHS + 1)
    ]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", whole[1].err)


@pytest.mark.slow
def test_the_table_is_printed(whole: tuple[Path, Ended]) -> None:
    found, text = result(whole[0]), whole[1].out
    assert text.startswith("aslp on conv2, digits\n")
    for layer in LAYERS:
        kept = f"{found['keep_fractions'][layer]:.1%}"
        assert re.search(rf"^{layer} .* {kept} ", text, re.MULTILINE)
    assert f"{found['thresholding']:.2%} thresholding" in text
    assert f"{found['averaging_mean']:.2%} ± {found['averaging_std']:.2%}" in text
    network = whole[0] / "network.aslp"
    assert text.splitlines()[-4:] == [
        f"picture        {whole[0]}/curves.png",
        f"report         {whole[0]}/report.html",
        f"network        {network}, {network.stat().st_size:,} bytes",
        f"next           aslp-jax inspect {network} --plot",
    ]


@pytest.mark.slow
def test_frozen_weights_stay_frozen(
    whole: tuple[Path, Ended], initial: dict[str, Any]
) -> None:
    first, last = initial["state"], saved(whole[0], STEPS * EPOCHS)["state"]
    assert len(jax.tree.leaves(first.frozen)) == len(LAYERS)
    assert_same_arrays(last.frozen, first.frozen)
    for layer in LAYERS:
        before, after = first.params["logits"][layer], last.params["logits"][layer]
        assert np.any(np.asarray(before) != np.asarray(after)), layer


# --- The same seed, the same run: at once, resumed, stopped, killed. ------------------


@pytest.mark.slow
def test_another_seed_gives_another_run(
    warm: Callable[..., Ended],
    whole: tuple[Path, Ended],
    initial: dict[str, Any],
    tmp_path: Path,
) -> None:
    out = tmp_path / "seed"
    ended = warm(f"{SMALL} --epochs 1 --seed 1 --no-report --out {out}")
    assert ended.code == 0
    assert "report" not in ended.out and not (out / "report.html").exists()
    one, other = rows(out)[0], rows(whole[0])[0]
    for name in ("train_loss", "validation_loss", "keep_fractions"):
        assert one[name] != other[name], name
    # Even with one epoch there is a state to go on from.
    assert checkpoint.steps(out / "checkpoints") == [STEPS]
    frozen = saved(out, STEPS)["state"].frozen
    for left, right in zip(
        jax.tree.leaves(frozen),
        jax.tree.leaves(initial["state"].frozen),
        strict=True,
    ):
        assert np.any(np.sign(left) != np.sign(right))


@pytest.mark.slow
def test_more_epochs_later_are_as_good_as_at_once(
    warm: Callable[..., Ended],
    whole: tuple[Path, Ended],
    tmp_path: Path,
) -> None:
    out = tmp_path / "more"
    ended = warm(f"{SMALL} --epochs 2 --tensorboard --out {out}")
    assert ended.code == 0, ended.err
    assert [*map(timeless, rows(out))] == [*map(timeless, rows(whole[0])[:2])]
    assert result(out)["epochs"] == 2
    ended = warm(f"--resume --epochs {EPOCHS} --out {out}")
    assert ended.code == 0, ended.err
    assert "from epoch 3" in ended.err.splitlines()[0]
    assert ended.err.splitlines()[1].startswith(f"epoch 3/{EPOCHS}")
    assert_same_run(out, whole[0])
    # The times add up over both parts.
    seconds = [row["seconds"] for row in rows(out)]
    assert seconds == sorted(seconds)
    # What the folder says is what was run, for a reader and for the next --resume.
    assert options(out)["epochs"] == EPOCHS
    assert_events(out)


def assert_events(folder: Path) -> None:
    """Asserts that TensorBoard finds every epoch of a finished run once."""
    pytest.importorskip("tensorboard")
    found, wanted = events.read(folder / "tensorboard"), rows(folder)
    for tag, name in (
        ("loss/training", "train_loss"),
        ("accuracy/validation", "validation_accuracy"),
        ("kept/total", "keep_fraction"),
    ):
        values = [(row["epoch"], pytest.approx(row[name])) for row in wanted]
        assert events.scalars(found, tag) == values
    steps = [row["epoch"] for row in wanted]
    for layer in LAYERS:
        tag = f"keep-probability/{layer}"
        assert events.histogram_steps(found, tag) == steps


@pytest.mark.slow
def test_a_run_killed_and_compiled_anew_ends_the_same(
    program: Callable[..., Ended],
    whole: tuple[Path, Ended],
    tmp_path: Path,
) -> None:
    out = tmp_path / "killed"
    ended = program(
        f"{SMALL} --epochs {EPOCHS} --checkpoint-seconds 0 --tensorboard --out {out}",
        script=INTERRUPTED.format(program=PROGRAM, name="SIGKILL"),
    )
    assert ended.code == -signal.SIGKILL
    assert ended.out == "" and not (out / "result.json").exists()
    assert len(rows(out)) == 1
    # The rest, evaluation included, by programs that are compiled once more.
    ended = program(f"--resume --out {out}", JAX_ENABLE_COMPILATION_CACHE="false")
    assert ended.code == 0, ended.err
    assert_same_run(out, whole[0])
    assert_events(out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]
)
def test_a_run_stopped_within_an_epoch_ends_the_same(
    warm: Callable[..., Ended],
    whole: tuple[Path, Ended],
    tmp_path: Path,
    name: str,
    code: int,
) -> None:
    out = tmp_path / "within"
    ended = warm(
        f"{SMALL} --epochs {EPOCHS} --out {out}",
        script=INTERRUPTED.format(program=PROGRAM, name=name),
    )
    assert ended.code == code, ended.err
    assert ended.out == "" and not (out / "result.json").exists()
    assert ended.err.splitlines()[-1] == (
        f"cifar.py: stopped by {name}, all is saved; continue with --out {out} --resume"
    )
    assert len(rows(out)) == 1
    assert checkpoint.steps(out / "checkpoints") == [STEPS + 1]
    ended = warm(f"--resume --out {out}")
    assert ended.code == 0, ended.err
    assert_same_run(out, whole[0])


# Gets a signal where the text says, outside of training.
ELSEWHERE = """
import os, runpy, signal, sys

sys.argv = [{program!r}, *sys.argv[1:]]
import aslp_jax.{module} as module

function = module.{name}

def stop(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    return function(*arguments, **options)

module.{name} = stop
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    module.{name} = function
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "made"),
    [
        ("trainer.loading", "load_dataset", []),
        ("trainer.loop", "train_sessions", ["config.json"]),
        ("trainer.closing", "evaluate_best", ["checkpoints", "config.json"]),
        ("trainer.plots", "plot_curves", ["checkpoints", "config.json"]),
    ],
)
def test_a_run_stopped_between_the_phases_goes_on(
    warm: Callable[..., Ended],
    whole: tuple[Path, Ended],
    tmp_path: Path,
    module: str,
    name: str,
    made: list[str],
) -> None:
    out = tmp_path / "between"
    line = f"{SMALL} --epochs {EPOCHS} --checkpoint-seconds 0 --out {out}"
    script = ELSEWHERE.format(program=PROGRAM, module=module, name=name)
    ended = warm(line, script=script)
    assert ended.code == 143, ended.err
    assert ended.out == "" and "Traceback" not in ended.err
    state = f"all is saved; continue with --out {out} --resume"
    last = f"cifar.py: stopped by SIGTERM, {state if made else 'nothing is written'}"
    assert ended.err.splitlines()[-1] == last
    found = set(os.listdir(out)) if out.exists() else set()
    assert set(made) <= found and "lock.json" not in found
    ended = warm(f"--resume --out {out}" if made else line)
    assert ended.code == 0, ended.err
    assert_same_run(out, whole[0])


@pytest.mark.slow
def test_a_run_has_one_writer(
    warm: Callable[..., Ended], whole: tuple[Path, Ended], copy: Path
) -> None:
    with claim(copy) as held:
        before = content(copy)
        message = only_line(warm(f"--resume --out {copy}"))
        assert f"{copy} is being written by {held.owner}" in message
        message = only_line(warm(f"{SMALL} --out {copy}"))
        assert f"{copy} is being written by {held.owner}" in message
        assert content(copy) == before
    # What two processes once wrote is mended.
    file = copy / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:3], lines[1], lines[1][:50] + lines[2], *lines]))
    for name in ("network.aslp.0123abcd", "result.json.partial"):
        (copy / name).write_text("left by a process that was killed")
    ended = warm(f"--resume --out {copy}")
    assert ended.code == 0, ended.err
    assert_same_run(copy, whole[0])
    assert set(os.listdir(copy)) == set(os.listdir(whole[0]))


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(
    warm: Callable[..., Ended], whole: tuple[Path, Ended], copy: Path
) -> None:
    before = content(copy)
    ended = warm(f"--resume --out {copy}")
    assert ended.code == 0, ended.err

    def without_compiling(text: str) -> list[str]:
        lines = text.splitlines()
        kept = [line for line in lines if not line.startswith("compiling ")]
        assert len(kept) == len(lines) - 1
        return kept

    said = ended.out.replace(str(copy), str(whole[0]))
    assert without_compiling(said) == without_compiling(whole[1].out)
    after = content(copy)
    for name in ("result.json", "metrics.jsonl"):
        assert after[name] == before[name], name
    assert {n: after[n] for n in after if n.startswith("checkpoints")} == {
        n: before[n] for n in before if n.startswith("checkpoints")
    }


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    warm: Callable[..., Ended], whole: tuple[Path, Ended], copy: Path
) -> None:
    damage(copy / "checkpoints" / str(STEPS * EPOCHS))
    ended = warm(f"--resume --out {copy}")
    assert ended.code == 0, ended.err
    # The last epoch is run again, and what it saves can be read.
    assert_same_run(copy, whole[0])


def damage(step: Path) -> None:
    """Cuts every file of a checkpoint in half."""
    for file in step.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(
    warm: Callable[..., Ended], initial: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "nan"
    ended = warm(f"{SMALL} --epochs 2 --scale-lr 1e30 --out {out}")
    assert ended.code == 3
    assert ended.out == ""
    note, line = ended.err.splitlines()
    assert note.startswith(f"{out}: ")
    found = re.match(
        r"cifar\.py: the loss became (nan|inf) in epoch 1, step (\d) of 4", line
    )
    assert found, line
    assert 1 <= int(found[2]) <= STEPS
    assert not (out / "result.json").exists()
    assert checkpoint.steps(out / "checkpoints") == [0]
    good = saved(out, 0)
    wanted = initial
    for part in ("state", "totals", "best", "previous"):
        assert_same_arrays(good[part], wanted[part])
    # Going on meets the same end, and says so again.
    ended = warm(f"--resume --out {out}")
    assert ended.code == 3
    assert found[0] in ended.err


# --- As many weights as asked for. ----------------------------------------------------


@pytest.mark.slow
def test_a_budget_is_met(warm: Callable[..., Ended], tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = "--optimiser adam --mask-lr 0.5 --logit-std 10 --keep 0.2"
    ended = warm(f"{SMALL} --epochs 1 {options} --out {out}")
    assert ended.code == 0, ended.err
    found = result(out)
    assert found["keep_fraction_asked"] == 0.2 and found["budget_miss"] == 0
    assert abs(found["keep_fraction"] - 0.2) <= 0.01
    kept = sum(layer["kept"] for layer in found["connectivity"].values())
    count = sum(found["weights"].values())
    assert kept == round(found["keep_fraction"] * count)
    assert found["outputs_reached"] == found["outputs"] == 10


@pytest.mark.slow
def test_a_budget_that_is_missed_ends_with_four_and_an_empty_layer_is_warned_of(
    warm: Callable[..., Ended], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = warm(f"{SMALL} --epochs 1 --keep 0.0005 --method budget --out {out}")
    assert ended.code == 4
    assert "thresholding" in ended.out and "before pruning" in ended.out
    found = result(out)
    # It is pruned to the budget; the distance before that is told.
    assert found["keep_fraction"] == pytest.approx(0.0005, abs=1e-5)
    assert found["budget_miss"] > 0.005
    assert f"is {found['budget_miss']:.2%} of all weights away" in ended.err
    empty = [name for name, each in found["connectivity"].items() if not each["kept"]]
    assert empty
    for name in empty:
        assert f"cifar.py: WARNING: {name} is left empty" in ended.err


@pytest.mark.slow
def test_fine_tuning_holds_what_was_pruned_and_survives_a_stop(
    warm: Callable[..., Ended], tmp_path: Path
) -> None:
    line = f"{SMALL} --epochs 2 --method magnitude --keep 0.1 --finetune"
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert warm(f"{line} --checkpoint-seconds 0 --out {whole}").code == 0
    assert [row["epoch"] for row in rows(whole)] == [1, 2, 3, 4]
    found = result(whole)
    assert found["best_epoch"] > 2 and found["epochs"] == 4
    # Nothing is left to prune.
    assert found["thresholding"] == found["averaging_mean"]
    assert rows(whole)[2]["flip_rate"] == rows(whole)[3]["flip_rate"] == 0
    # From the checkpoint after the first epoch of fine-tuning.
    shutil.copytree(whole, stopped)
    steps = checkpoint.steps(stopped / "checkpoints")
    assert steps[-1] == 4 * STEPS
    shutil.rmtree(stopped / "checkpoints" / str(steps[-1]))
    ended = warm(f"--resume --out {stopped}")
    assert ended.code == 0, ended.err
    assert [*map(timeless, rows(stopped))] == [*map(timeless, rows(whole))]
    assert timeless(result(stopped)) == timeless(found)


# --- What cannot be done is said in one line, and leaves nothing behind. --------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--epochs 0", ["--epochs", "at least 1", "got 0"]),
        ("--arch conv3", ["--arch", "conv3", "conv2"]),
        (f"{SMALL} --devices 2", ["--devices 2", "only 1"]),
        (f"{SMALL} --micro-batch 7", ["--micro-batch 7", "32"]),
        (f"{SMALL} --batch-size 2000", ["--batch-size 2000", "more than the"]),
        ("--data-dir MISSING", ["MISSING"]),
        ("--data-dir EMPTY", ["EMPTY", "cifar10"]),
        ("--data-dir OTHER", ["OTHER", "cifar10"]),
        ("--manual-dir MISSING", ["MISSING", "cifar-10-binary.tar.gz"]),
        ("--manual-dir EMPTY", ["EMPTY", "cifar-10-binary.tar.gz"]),
    ],
)
def test_mistakes(
    warm: Callable[..., Ended], tmp_path: Path, line: str, words: list[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "OTHER" / "mnist" / "3.0.1").mkdir(parents=True)
    for name in ("MISSING", "EMPTY", "OTHER"):
        line = line.replace(name, str(tmp_path / name))
    before = content(tmp_path)
    message = only_line(warm(f"{line} --out {tmp_path / 'out'}"))
    for word in words:
        assert word in message
    assert content(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file", "is a file"),
        ("file/below", "Not a directory"),
        ("full", "is not empty"),
        ("x" * 300, "name too long"),
    ],
)
def test_folders_that_cannot_be_used(
    warm: Callable[..., Ended], tmp_path: Path, out: str, words: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    before = content(tmp_path)
    message = only_line(warm(f"{SMALL} --epochs 1 --out {tmp_path / out}"))
    assert words in message
    assert str(tmp_path / out) in message
    assert content(tmp_path) == before


@pytest.mark.slow
def test_a_run_is_not_overwritten(
    warm: Callable[..., Ended], whole: tuple[Path, Ended]
) -> None:
    before = content(whole[0])
    message = only_line(warm(f"{SMALL} --epochs 1 --out {whole[0]}"))
    assert "--resume" in message
    assert content(whole[0]) == before


@pytest.mark.parametrize("place", ["missing", "empty", "file"])
def test_no_run_to_resume(
    warm: Callable[..., Ended], tmp_path: Path, place: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    before = content(tmp_path)
    message = only_line(warm(f"--resume --out {tmp_path / place}"))
    assert str(tmp_path / place) in message
    assert "no run to resume" in message
    assert content(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--arch conv4", "--arch conv2, not conv4"),
        ("--seed 7", "--seed 0, not 7"),
        ("--preset released_code", "--bias none, not uniform"),
    ],
)
def test_a_run_resumes_with_its_own_options_only(
    warm: Callable[..., Ended], whole: tuple[Path, Ended], flags: str, words: str
) -> None:
    before = content(whole[0])
    message = only_line(warm(f"--resume --out {whole[0]} {flags}"))
    assert words in message
    assert content(whole[0]) == before


@pytest.mark.slow
def test_a_run_with_damaged_metrics_is_left_as_it_is(
    warm: Callable[..., Ended], copy: Path
) -> None:
    (copy / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch"')
    before = content(copy)
    message = only_line(warm(f"--resume --out {copy}"))
    assert "metrics.jsonl" in message
    assert "damaged" in message
    assert content(copy) == before


@pytest.mark.slow
def test_a_run_with_only_damaged_checkpoints_is_left_as_it_is(
    warm: Callable[..., Ended], copy: Path
) -> None:
    for step in (copy / "checkpoints").iterdir():
        damage(step)
    before = content(copy)
    message = only_line(warm(f"--resume --out {copy}"))
    assert str(copy / "checkpoints" / str(STEPS * EPOCHS)) in message
    assert re.search(r"cannot be read|damaged", message)
    assert content(copy) == before


@pytest.mark.slow
def test_without_a_network_there_is_a_way_on(
    warm: Callable[..., Ended], tmp_path: Path
) -> None:
    began = time.monotonic()
    ended = warm(f"--dataset cifar10 --out {tmp_path / 'out'}")
    assert time.monotonic() - began < 10
    message = only_line(ended)
    for word in (
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "holds cifar-10-binary.tar.gz",
        "--manual-dir",
        "--dataset digits",
    ):
        assert word in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_a_full_disk_is_said_in_one_line(
    warm: Callable[..., Ended], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = warm(
        f"100000 {SMALL} --epochs 2 --checkpoint-seconds 0 --out {out}",
        script=LIMITED.format(program=PROGRAM),
    )
    assert ended.code == 2, ended.err[-2000:]
    note, epoch, line = ended.err.splitlines()
    assert note.startswith(f"{out}: ")
    assert epoch.startswith("epoch 1/2")
    assert line.startswith(f"cifar.py: cannot write to {out}: ")
    assert "too large" in line
    assert "--resume" in line
    # With space again the run goes on from its beginning.
    assert checkpoint.steps(out / "checkpoints") == []
    assert len(rows(out)) == 1

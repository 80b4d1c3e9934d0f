"""Checkpoints: the same values come back, or a CheckpointError says why not."""

import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aslp_jax import checkpoint
from aslp_jax.checkpoint import CheckpointError

IDENTITY = {"arch": "conv2", "seed": 3, "mask_lr": 50.0, "augment": False, "out": None}


def nested() -> dict[str, Any]:
    """A tree with all that a run saves: odd dtypes, scalars, NamedTuples, nothing."""
    bits = np.random.default_rng(5)
    params = {
        "logits": {"Conv_0/kernel": jnp.asarray(bits.normal(size=(3, 4)), jnp.float32)},
        "scale": {"Conv_0/kernel": jnp.asarray(1.25, jnp.float32)},
    }
    optimiser = optax.chain(optax.scale_by_adam(), optax.trace(0.9))
    state = jax.tree.map(
        lambda leaf: jnp.asarray(bits.integers(1, 99, leaf.shape), leaf.dtype),
        optimiser.init(params),
    )
    return {
        "params": params,
        "opt_state": state,
        "step": jnp.asarray(2**31 - 1, jnp.int32),
        "masks": jnp.asarray(bits.random((5, 7)) < 0.5),
        "half": jnp.asarray([1.0, -0.0, jnp.nan, jnp.inf, 3.14], jnp.bfloat16),
        "tail": np.asarray([np.nan, -0.0, np.inf, 5e-324]),
        "images": np.arange(256, dtype=np.uint8),
        "progress": {
            "epoch": np.asarray(2**40, np.int64),
            "best_accuracy": np.float64(0.1),
            "seconds": np.asarray(1 / 3),
        },
        "empty": {},
        "none": None,
        "pair": (np.zeros((2, 1), np.float32), [np.ones((), np.bool_)]),
    }


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(
        jax.tree.leaves(found), map(np.asarray, jax.tree.leaves(wanted)), strict=True
    ):
        assert isinstance(one, np.ndarray)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def small() -> dict[str, Any]:
    return {
        "weights": np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32),
        "masks": np.random.default_rng(2).random(64) < 0.5,
        "step": np.asarray(12, np.int32),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoint 4 of `small()`; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoint.save(folder, 4, small(), IDENTITY)
    return folder


def test_a_nested_tree_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tree = nested()
    checkpoint.save(tmp_path / "new" / "folder", 0, tree, IDENTITY)
    like = jax.tree.map(lambda leaf: np.zeros_like(np.asarray(leaf)), tree)
    found = checkpoint.restore(tmp_path / "new" / "folder", 0, like, IDENTITY)
    assert_same(found, tree)


def test_a_relative_folder_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save(Path("run"), 1, small(), IDENTITY)
    assert checkpoint.steps(Path("run")) == [1]
    assert_same(checkpoint.restore(Path("run"), 1, small(), IDENTITY), small())


def test_the_newest_two_stay(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        checkpoint.save(tmp_path, step, small(), IDENTITY)
        assert checkpoint.steps(tmp_path)[-1] == step
    assert checkpoint.steps(tmp_path) == [10, 11]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["10", "11"]
    assert_same(checkpoint.restore(tmp_path, 10, small(), IDENTITY), small())


def test_a_step_that_exists_is_left_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 4, small(), IDENTITY)
    before = {file: file.read_bytes() for file in files(tmp_path)}
    checkpoint.save(tmp_path, 4, {"other": np.zeros(3)}, {})
    assert {file: file.read_bytes() for file in files(tmp_path)} == before


@pytest.mark.parametrize(
    ("changed", "old", "new"),
    [
        ({"arch": "conv4"}, "'conv2'", "'conv4'"),
        ({"seed": 4}, "3", "4"),
        ({"mask_lr": 51.0}, "50.0", "51.0"),
        ({"augment": True}, "False", "True"),
        ({"out": "here"}, "None", "'here'"),
        ({"extra": 7}, "None", "7"),
    ],
)
def test_another_identity_is_refused(
    saved: Path, changed: dict[str, Any], old: str, new: str
) -> None:
    (name,) = changed
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(saved, 4, small(), {**IDENTITY, **changed})
    message = str(caught.value)
    assert message.startswith("restore: ")
    assert f"saved with {name} {old}, not {new}" in message
    assert "\n" not in message


def test_an_identity_that_lacks_an_option_is_refused(saved: Path) -> None:
    lacking = {name: value for name, value in IDENTITY.items() if name != "seed"}
    with pytest.raises(CheckpointError, match="saved with seed 3, not None"):
        checkpoint.restore(saved, 4, small(), lacking)


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"weights": None}, "only one side has ['weights']"),
        ({"more": np.zeros(3)}, "only one side has ['more']"),
        (
            {"weights": np.zeros((30, 40), np.float32)},
            "'weights' as float32[40, 30], not float32[30, 40]",
        ),
        (
            {"weights": np.zeros((40, 30, 1), np.float32)},
            "'weights' as float32[40, 30], not float32[40, 30, 1]",
        ),
        (
            {"weights": np.zeros((40, 30), np.float64)},
            "'weights' as float32[40, 30], not float64[40, 30]",
        ),
        (
            {"weights": jnp.zeros((40, 30), jnp.bfloat16)},
            "'weights' as float32[40, 30], not bfloat16[40, 30]",
        ),
        ({"masks": np.zeros(64, np.uint8)}, "'masks' as bool[64], not uint8[64]"),
        ({"step": np.asarray(0, np.int64)}, "'step' as int32[], not int64[]"),
    ],
)
def test_other_arrays_are_refused(
    saved: Path, like: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(saved, 4, {**small(), **like}, IDENTITY)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder_has_no_steps(tmp_path: Path) -> None:
    assert checkpoint.steps(tmp_path / "missing") == []
    (tmp_path / "file").write_text("")
    assert checkpoint.steps(tmp_path / "file") == []


@pytest.mark.parametrize("place", ["missing", "empty", "file"])
def test_what_is_not_there_is_an_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(tmp_path / place, 4, small(), IDENTITY)
    assert str(tmp_path / place / "4") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder with checkpoint 4 and the half of 8 that a kill -9 left.

    The child kills itself where something of 8 would get its final name.
    """
    program = """
import os, signal, sys
import numpy as np
from aslp_jax import checkpoint

checkpoint.save(sys.argv[1], 4, {"weights": np.ones(9, np.float32)}, {})

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

os.rename = os.replace = kill
checkpoint.save(sys.argv[1], 8, {"weights": np.zeros(9, np.float32)}, {})
"""
    folder = tmp_path / "checkpoints"
    child = subprocess.run([sys.executable, "-c", program, str(folder)])
    assert child.returncode == -signal.SIGKILL
    return folder


@pytest.mark.slow
def test_what_a_killed_save_leaves_is_no_checkpoint(
    killed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(list(killed.iterdir())) == 2
    assert checkpoint.steps(killed) == [4]
    like = {"weights": np.zeros(9, np.float32)}
    with pytest.raises(CheckpointError):
        checkpoint.restore(killed, 8, like, {})
    checkpoint.save(killed, 8, like, {})
    assert checkpoint.steps(killed) == [4, 8]
    assert_same(checkpoint.restore(killed, 8, like, {}), like)
    # Nothing is printed about it, since a run shows one line an epoch.
    assert not caplog.records


@pytest.mark.slow
def test_what_a_killed_save_leaves_does_not_stay_for_ever(killed: Path) -> None:
    for step in (12, 16):
        checkpoint.save(killed, step, small(), IDENTITY)
    assert sorted(entry.name for entry in killed.iterdir()) == ["12", "16"]


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            checkpoint.save(folder, 1, small(), IDENTITY)


@pytest.mark.parametrize(("free", "refused"), [(0, False), (5, True), (999, False)])
def test_too_few_inodes_are_said_before_orbax_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, refused: bool
) -> None:
    found = types.SimpleNamespace(f_favail=free)  # 0: inodes are not counted
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    if refused:
        with pytest.raises(OSError, match="No space left for more files"):
            checkpoint.save(tmp_path, 1, small(), IDENTITY)
        assert checkpoint.steps(tmp_path) == []
    else:
        checkpoint.save(tmp_path, 1, small(), IDENTITY)
        assert checkpoint.steps(tmp_path) == [1]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damages(content: bytes) -> dict[str, bytes]:
    """What a failing disk may make of a file."""
    size = len(content)
    places = {0, 1, size // 7, size // 3, size // 2, 2 * size // 3, size - 2, size - 1}
    result = {
        f"byte {place} xor {flip:#x}": (
            content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
        )
        for place in places
        if 0 <= place < size
        for flip in (0x01, 0xFF)
    }
    for length in {0, 1, size // 2, size - 1}:
        result[f"first {length} bytes"] = content[:length]
    result["zeros"] = bytes(size)
    result["and more"] = content + b"\0" * 16
    return result


def test_damage_is_found_or_does_no_harm(
    saved: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    found = files(folder)
    assert len(found) >= 5
    harmless, noticed = [], []
    for file in found:
        whole = file.read_bytes()
        for name, content in damages(whole).items():
            file.write_bytes(content)
            where = f"{file.relative_to(folder)}: {name}"
            try:
                tree = checkpoint.restore(folder, 4, small(), IDENTITY)
            except CheckpointError as error:
                assert "\n" not in str(error), where
                noticed.append(where)
            else:
                try:
                    assert_same(tree, small())
                except AssertionError:
                    pytest.fail(f"{where}: restored something else")
                harmless.append(where)
        file.unlink()
        try:
            assert_same(checkpoint.restore(folder, 4, small(), IDENTITY), small())
        except CheckpointError as error:
            assert "\n" not in str(error), file
        file.write_bytes(whole)
    # Every file is whole again, and the damage was not all beside the point.
    assert_same(checkpoint.restore(folder, 4, small(), IDENTITY), small())
    assert len(noticed) > 80, harmless
    # Nothing is printed by what reads the files: the caller has the one line.
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_values_that_orbax_restores_gladly_must_match_their_sha256(
    saved: Path, tmp_path: Path
) -> None:
    # The arrays of one checkpoint beside the manifest of another: each is well formed.
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    checkpoint.save(tmp_path, 4, {**small(), "masks": ~small()["masks"]}, IDENTITY)
    shutil.rmtree(folder / "4" / "arrays")
    shutil.copytree(tmp_path / "4" / "arrays", folder / "4" / "arrays")
    with pytest.raises(CheckpointError, match="does not match its sha256"):
        checkpoint.restore(folder, 4, small(), IDENTITY)


def test_whatever_orbax_returns_is_compared_with_what_was_saved(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = checkpoint.ocp.Checkpointer.restore

    def nearly(*args: Any, **kwargs: Any) -> Any:
        result = restore(*args, **kwargs)
        arrays = result if isinstance(result, dict) else dict(result.items())
        arrays = arrays.get("arrays") or arrays
        if "masks" in arrays:
            arrays["masks"] = ~arrays["masks"]
        return result

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", nearly)
    with pytest.raises(CheckpointError, match="'masks' does not match its sha256"):
        checkpoint.restore(saved, 4, small(), IDENTITY)


@pytest.mark.parametrize("words", ["one\ntwo", "", "\n"])
def test_whatever_orbax_raises_becomes_one_line(
    saved: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(saved, 4, small(), IDENTITY)
    line = f"{saved / '4'} cannot be read as a checkpoint (RuntimeError: "
    assert line + words.split("\n")[0] in str(caught.value)
    assert "\n" not in str(caught.value)

"""Event files, read back by TensorBoard's own reader."""

import contextlib
import gc
import resource
import signal
import sys

import numpy as np
import pytest

from aslp_jax._claim import writer_here
from aslp_jax._errors import BadInput
from aslp_jax._extras import MissingExtra
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.session import Session
from aslp_jax.trainer.tensorboard import EventLog
from tests.helpers import SIX, epoch_row
from tests.trainer.events import histogram_steps, read, scalars

pytest.importorskip("tensorboardX")
pytest.importorskip("tensorboard")


def probabilities(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.random((3, 5)) for name in SIX}


def write(log, epochs, earlier=(), **changes):
    earlier = list(earlier)
    for epoch in epochs:
        row = epoch_row(epoch, train_loss=1 / epoch, **changes)
        log.write(row, earlier, probabilities(epoch))
        earlier.append(row)
    return earlier


def test_scalars_and_histograms_are_those_of_the_rows(tmp_path):
    log = EventLog(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
    rows = write(log, [1, 2, 3], metrics={"at_rest": dict.fromkeys(SIX, 0.25)})
    log.close()
    log.close()
    found = read(tmp_path / "tensorboard")
    wanted = {
        "loss/training": [row.train_loss for row in rows],
        "loss/validation": [row.validation_loss for row in rows],
        "accuracy/validation": [row.validation_accuracy for row in rows],
        "kept/total": [row.keep_fraction for row in rows],
        "kept/Conv_1/kernel": [row.keep_fractions["Conv_1/kernel"] for row in rows],
        "scale/Dense_2/kernel": [1.5] * 3,
        "at_rest/Conv_0/kernel": [0.25] * 3,
        "images per second": [12345.6] * 3,
    }
    for tag, values in wanted.items():
        steps, read_back = zip(*scalars(found, tag), strict=True)
        assert steps == (1, 2, 3)
        np.testing.assert_allclose(read_back, values, rtol=1e-6)
    assert len(found.Tags()["scalars"]) == 8 + 3 * len(SIX)
    assert set(found.Tags()["histograms"]) == {f"keep-probability/{n}" for n in SIX}
    for epoch, each in enumerate(found.Histograms("keep-probability/Conv_1/kernel"), 1):
        values = probabilities(epoch)["Conv_1/kernel"]
        histogram = each.histogram_value
        assert (each.step, histogram.num) == (epoch, 15)
        assert histogram.min == values.min() and histogram.max == values.max()
        assert histogram.sum == pytest.approx(values.sum())
        assert histogram.sum_squares == pytest.approx((values**2).sum())
        counts, edges = np.histogram(values, bins=50, range=(0, 1))
        # The reader adds an empty bucket at an end, if any.
        limits = dict(zip(histogram.bucket_limit, histogram.bucket, strict=True))
        for edge, count in zip(edges[1:], counts, strict=True):
            assert limits.get(edge, 0) == count


def test_a_run_that_goes_on_takes_no_epoch_twice(tmp_path):
    # Epochs 4 and 5 came after the last checkpoint; each start is in the same second.
    first = EventLog(tmp_path)
    rows = write(first, [1, 2, 3, 4, 5])
    first.close()
    second = EventLog(tmp_path)
    rows = write(second, [4, 5, 6], rows[:3], validation_loss=9.0)
    third = EventLog(tmp_path)  # the second was killed
    write(third, [6], rows[:5], validation_loss=8.0)
    for log in (third, second):
        log.close()
    found = read(tmp_path)
    assert scalars(found, "loss/validation") == [
        *((epoch, 1.5) for epoch in (1, 2, 3)),
        *((epoch, 9.0) for epoch in (4, 5)),
        (6, 8.0),
    ]
    steps = histogram_steps(found, "keep-probability/Conv_0/kernel")
    assert steps == [1, 2, 3, 4, 5, 6]
    assert len(list(tmp_path.iterdir())) == 3


def test_an_empty_file_of_a_killed_process_costs_no_epoch(tmp_path):
    (tmp_path / "events.out.tfevents.1700000000.host.000000").touch()
    log = EventLog(tmp_path)
    write(log, [3], [epoch_row(epoch, train_loss=1 / epoch) for epoch in (1, 2)])
    log.close()
    steps = [step for step, _ in scalars(read(tmp_path), "loss/training")]
    assert steps == [1, 2, 3]


def test_a_file_that_a_killed_process_left_is_read_up_to_its_end(tmp_path):
    log = EventLog(tmp_path)
    rows = write(log, [1, 2, 3])
    log.close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    log = EventLog(tmp_path)
    write(log, [3, 4], rows[:2])
    log.close()
    steps = [step for step, _ in scalars(read(tmp_path), "loss/training")]
    assert steps == [1, 2, 3, 4]


def test_a_run_that_began_without_event_files_gets_its_scalars(tmp_path):
    log = EventLog(tmp_path)
    write(log, [4], [epoch_row(epoch, train_loss=1 / epoch) for epoch in (1, 2, 3)])
    log.close()
    found = read(tmp_path)
    wanted = [(epoch, pytest.approx(1 / epoch)) for epoch in (1, 2, 3, 4)]
    assert scalars(found, "loss/training") == wanted
    assert histogram_steps(found, "keep-probability/Conv_0/kernel") == [4]


def test_without_the_package_one_line_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtra) as missing:
        EventLog(tmp_path)
    assert str(missing.value) == (
        "--tensorboard needs the package tensorboardX; "
        'pip install "aslp-jax[tensorboard]"'
    )


@contextlib.contextmanager
def no_file_grows_beyond(size):
    """Lets this process meet what a full disk is: a write that fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_once_and_leaves_no_open_file(tmp_path):
    log = EventLog(tmp_path)
    rows = write(log, [1])
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size
    with no_file_grows_beyond(size + 100):
        with pytest.raises(OSError, match="too large"):
            log.write(epoch_row(2), rows, {})  # so little that a buffer keeps it
        log.close()
        del log
        gc.collect()  # a file that is still open would be written once more
    assert file.stat().st_size <= size + 100
    log = EventLog(tmp_path)
    write(log, [2], rows)
    log.close()
    steps = [step for step, _ in scalars(read(tmp_path), "loss/training")]
    assert steps == [1, 2]


def test_a_full_disk_at_the_end_is_one_line_and_frees_the_folder(tmp_path):
    folder = RunFolder(tmp_path)
    folder.claim()
    assert writer_here(tmp_path) is not None
    log = EventLog(tmp_path / "tensorboard")
    write(log, [1])
    log._add(2, summary=[])  # waits in memory
    session = Session(None, folder, [], events=log)
    with no_file_grows_beyond(10):
        with pytest.raises(BadInput, match=r"cannot write to .*too large"):
            session.close()
        session.close()
    assert writer_here(tmp_path) is None

"""Event files of TensorBoard: scalars and histograms of a run, beside metrics.jsonl.

tensorboardX writes them: it needs NumPy, packaging and protobuf alone. Its
`EventsWriter` is used, and not its `SummaryWriter`, whose thread would keep an error of
the disk to itself.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax._extras import require
from aslp_jax.trainer.results import EpochRow

__all__ = ["EVENTS", "EventLog"]

EVENTS = "tensorboard"
"""Name of the folder of event files in a run folder."""

_BINS = 50
"""Number of bins of a histogram of keep-probabilities."""


class EventLog:
    """Event files of one run, a new file each time that the run goes on.

    A run that is resumed takes epochs again that an earlier file may hold already: a
    mark at the beginning of the new file tells readers to leave these out. Epochs that
    no file holds, because the run began without event files, get their scalars.
    """

    def __init__(self, folder: Path) -> None:
        """Names the folder; writes nothing yet.

        Args:
          folder: folder of the event files; made with the first epoch.

        Raises:
          MissingExtra: tensorboardX is not installed.
        """
        require("tensorboardX", by="--tensorboard")
        self._folder = folder
        self._writer: Any = None

    def write(
        self,
        row: EpochRow,
        earlier: Sequence[EpochRow],
        keep_probabilities: Mapping[str, np.ndarray],
    ) -> None:
        """Writes an epoch; other programs can read it when this returns.

        Args:
          row: row of the epoch.
          earlier: rows of all epochs before.
          keep_probabilities: arrays of any shape in [0, 1], by layer.

        Raises:
          OSError: the folder cannot be written. The present file is then closed.
        """
        histograms = [
            _histogram(f"keep-probability/{name}", values)
            for name, values in keep_probabilities.items()
        ]
        try:
            if self._writer is None:
                self._open(row.epoch, earlier)
            self._add(row.epoch, summary=[*_scalars(row), *histograms])
            self._writer.flush()
        except OSError:
            with contextlib.suppress(OSError):  # the same once more
                self.close()
            raise

    def close(self) -> None:
        """Closes the present file; a second call does nothing.

        Raises:
          OSError: the folder cannot be written. The file is closed all the same.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.close()
        finally:
            # The writer leaves the file open if it cannot be flushed.
            writer._py_recordio_writer.close()

    def _open(self, epoch: int, earlier: Sequence[EpochRow]) -> None:
        """Begins a file whose first epoch is `epoch`."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._folder.mkdir(exist_ok=True)
        # A process that was killed at once leaves an empty file.
        sizes = [file.stat().st_size for file in self._folder.iterdir()]
        # Readers take files by their names. Those of one second differ by the number.
        self._writer = EventsWriter(str(self._folder / "events"), f".{len(sizes):06}")
        if any(sizes):
            self._add(epoch, session_log=SessionLog(status=SessionLog.START))
        else:
            for row in earlier:
                self._add(row.epoch, summary=_scalars(row))

    def _add(self, epoch: int, *, summary: Sequence[Any] = (), **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if summary:
            content["summary"] = Summary(value=summary)
        self._writer.write_event(Event(wall_time=time.time(), step=epoch, **content))


def _scalars(row: EpochRow) -> list[Any]:
    """Returns the numbers of a row as values of a summary."""
    from tensorboardX.proto.summary_pb2 import Summary

    numbers = {
        "loss/training": row.train_loss,
        "loss/validation": row.validation_loss,
        "accuracy/training": row.train_accuracy,
        "accuracy/validation": row.validation_accuracy,
        "accuracy/best validation": row.best_validation_accuracy,
        "kept/total": row.keep_fraction,
        "flip rate": row.flip_rate,
        "images per second": row.images_per_second,
    }
    groups = {"kept": row.keep_fractions, **row.scalars, **row.metrics}
    for group, leaves in groups.items():
        numbers |= {f"{group}/{name}": value for name, value in leaves.items()}
    return [
        Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()
    ]


def _histogram(tag: str, values: np.ndarray) -> Any:
    """Returns numbers in [0, 1] as a histogram in a summary."""
    from tensorboardX.proto.summary_pb2 import HistogramProto, Summary

    flat = np.asarray(values, np.float64).ravel()
    counts, edges = np.histogram(flat, bins=_BINS, range=(0.0, 1.0))
    histogram = HistogramProto(
        min=flat.min(),
        max=flat.max(),
        num=flat.size,
        sum=flat.sum(),
        sum_squares=flat @ flat,
        bucket_limit=edges[1:],
        bucket=counts,
    )
    return Summary.Value(tag=tag, histo=histogram)

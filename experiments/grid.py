"""The cells of a grid, trained one after another, each with all its seeds at once.

A grid is a folder: `grid.json` says what recipe its cells share, `cells/` holds a run
folder for each cell and seed. What is finished is kept, what was cut off goes on.
"""

import dataclasses
import itertools
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from config import FIELDS, PRESETS, RESCALES, BadInput, Config, knows, resolve
from folder import replace_text, writing
from progress import humanise_seconds

if TYPE_CHECKING:
    from trial import Trial

    from aslp_jax import datasets

FORMAT = 1
"""Of a grid's folder; raised when what is in it changes its meaning."""

_STOPPING = ("epochs", "patience")
"""Options that may change when one run is resumed, but not within a table."""

AXES = ("arch", "augment", "method", "rescale", "signed_constant", "seed")
"""The options in which the cells and seeds of a grid differ."""


RESULT = (
    "stochastic",
    "thresholding",
    "averaging_mean",
    "keep_fraction",
    "best_epoch",
    "best_validation_accuracy",
)
"""What the reports read of a finished run's result.json."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
      arch: name of the network.
      augment: whether training images are cropped and flipped.
      method: how weights are selected.
      rescale: of that method.
      signed_constant: whether all weights of a layer have one magnitude.
    """

    arch: str
    augment: bool
    method: str
    rescale: str
    signed_constant: bool

    @property
    def name(self) -> str:
        """Such as `conv4-augmented-aslp-smart-sc`."""
        images = "augmented" if self.augment else "plain"
        weights = "sc" if self.signed_constant else "normal"
        return f"{self.arch}-{images}-{self.method}-{self.rescale}-{weights}"

    def options(self, seed: int) -> dict[str, Any]:
        """The options that this cell and a seed stand for."""
        return {
            **dataclasses.asdict(self),
            "signed_constant": "all" if self.signed_constant else "none",
            "seed": seed,
        }


def all_cells() -> list[Cell]:
    """Returns every cell that means something, those of a network side by side."""
    return [
        Cell(arch, augment, method, rescale, constant)
        for arch, constant, augment, (method, rescales) in itertools.product(
            FIELDS["arch"].metadata["choices"],
            (True, False),
            (True, False),
            RESCALES.items(),
        )
        for rescale in rescales
    ]


class Record(NamedTuple):
    """A finished run.

    Attributes:
      cell: of the grid.
      seed: of the run.
      result: what its result.json holds, `RESULT` at least; of a run whose loss was not
        finite `stochastic` and `diverged`, which says where.
      rows: of its metrics.jsonl, an epoch each.
    """

    cell: Cell
    seed: int
    result: dict[str, Any]
    rows: list[dict[str, Any]]


class Grid:
    """A grid's folder.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any]) -> None:
        """Opens or begins a grid.

        Args:
          path: the folder: missing, empty, or of the same recipe.
          recipe: what its cells share, JSON values.

        Raises:
          BadInput: the folder holds something else, or cannot be written.
        """
        self.path = path
        about = {"format": FORMAT, **recipe}
        file = path / "grid.json"
        with writing(path):
            if path.exists() and not path.is_dir():
                raise BadInput(f"--out {path} is a file; name a folder")
            if not file.exists():
                # What was cut off while it was begun may be begun again.
                held = set(path.iterdir()) if path.is_dir() else set()
                if held - {file.with_name("grid.json.partial")}:
                    raise BadInput(
                        f"--out {path} holds something else; name a new folder"
                    )
                path.mkdir(parents=True, exist_ok=True)
                replace_text(file, json.dumps(about, indent=2) + "\n")
                return
            try:
                found = _flat(dict(json.loads(file.read_text())))
            except (ValueError, TypeError):
                raise BadInput(f"{file} is damaged; name another --out") from None
        wanted = _flat(about)
        for name in sorted({*wanted, *found}):
            if wanted.get(name) != found.get(name):
                raise BadInput(
                    f"--out {path} holds a grid with {name} {found.get(name)!r}, not "
                    f"{wanted.get(name)!r}; name another --out for this one"
                )

    def folder(self, cell: Cell, seed: int) -> Path:
        """The run folder of a cell and seed."""
        return self.path / "cells" / f"{cell.name}-seed{seed}"

    def record(self, cell: Cell, seed: int) -> Record | None:
        """Returns what is known of a finished run, None of another.

        Raises:
          BadInput: its files are damaged.
        """
        return _read_record(self.folder(cell, seed), cell, seed)

    def records(self) -> list[Record]:
        """Returns what is known of all finished runs; see `read_records`."""
        return read_records(self.path)


def _flat(about: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested JSON values by their path, such as "aslp mask_lr"."""
    flat: dict[str, Any] = {}
    for name, value in about.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{start}{name} ")
        else:
            flat[start + name] = value
    return flat


def read_records(path: Path) -> list[Record]:
    """Returns what is known of all finished runs of a grid, in the order of its cells.

    Args:
      path: the grid's folder.

    Raises:
      BadInput: the files of a run are damaged.
    """
    found = {folder.name: folder for folder in (path / "cells").glob("*-seed*")}
    records = []
    for cell in all_cells():
        start = f"{cell.name}-seed"
        numbers = [name[len(start) :] for name in found if name.startswith(start)]
        for seed in sorted(int(number) for number in numbers if number.isdigit()):
            record = _read_record(found[f"{start}{seed}"], cell, seed)
            if record is not None:
                records.append(record)
    return records


def _read_record(folder: Path, cell: Cell, seed: int) -> Record | None:
    """What is known of a finished run, None of another."""
    if not (folder / "result.json").exists():
        return None
    try:
        result = dict(json.loads((folder / "result.json").read_text()))
        needed = ("stochastic",) if "diverged" in result else RESULT
        if missing := [name for name in needed if name not in result]:
            raise ValueError(f"no {missing}")
        metrics = folder / "metrics.jsonl"
        # A run that diverged in its first epoch has none.
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return Record(cell, seed, result, [json.loads(line) for line in lines])
    except (OSError, ValueError, TypeError):
        raise BadInput(
            f"{folder} is damaged; delete it, and the run is made anew"
        ) from None


class GridProgress:
    """Tells a person how far a grid is: a live line, or a line a group in a log.

    Args:
      file: where to write.
      runs: to be made in all.
      clock: monotonic time in seconds.
    """

    def __init__(
        self,
        file: TextIO,
        *,
        runs: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._clock = file, clock
        self._live = file.isatty()
        self._runs, self._done = runs, 0
        self._began = self._drawn = clock()
        self._what, self._epochs, self._share = "", 1, 0

    def group(self, what: str, share: int, epochs: int) -> None:
        """Begins a group of `share` runs of at most `epochs` epochs."""
        self._what, self._share, self._epochs = what, share, epochs

    def step(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Reports progress within an epoch; does nothing in a log."""
        now = self._clock()
        if not self._live or now - self._drawn < 0.2:
            return
        self._drawn = now
        within = (epoch - 1 + step / steps) / self._epochs
        text = (
            f"run {self._done + 1}/{self._runs}  {self._what}  "
            f"epoch {epoch}/{self._epochs}  {images_per_second:,.0f} images/s  "
            f"{self._left(self._done + self._share * within)}"
        )
        columns = shutil.get_terminal_size().columns - 1
        self._file.write(f"\r{text[:columns]}\x1b[K")
        self._file.flush()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Taken as every watcher takes it; the steps tell enough."""

    def finished(self, outcome: str) -> None:
        """Ends a group with a line that stays."""
        self._done += self._share
        start = "\r" if self._live else ""
        end = "\x1b[K" if self._live else ""
        print(
            f"{start}run {self._done}/{self._runs}  {self._what}  {outcome}  "
            f"{self._left(self._done)}{end}",
            file=self._file,
            flush=True,
        )

    def close(self) -> None:
        """Ends the live line, so that what comes next starts afresh."""
        if self._live and self._drawn > self._began:
            print(file=self._file, flush=True)

    def note(self, text: str) -> None:
        """Writes a line that stays."""
        print(f"\r{text}\x1b[K" if self._live else text, file=self._file, flush=True)

    def _left(self, done: float) -> str:
        spent = self._clock() - self._began
        if done >= self._runs:
            return f"all done in {humanise_seconds(spent)}"
        left = spent * (self._runs - done) / done if done > 0 else math.inf
        return f"about {humanise_seconds(left)} left"


def train_grid(
    grid: Grid,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    configure: Callable[[Cell, int], Config],
    data: "datasets.Dataset",
    *,
    per_device: int = 1,
    deadline: float = math.inf,
    progress_file: TextIO = sys.stderr,
) -> None:
    """Makes every run of some cells that is not finished yet.

    The seeds of a cell go through one program, spread over the devices.

    Args:
      grid: its folder.
      cells: to fill.
      seeds: of each cell.
      configure: from cell and seed to the options of the run.
      data: the images.
      per_device: runs that a device trains at once.
      deadline: of `time.monotonic()`, when to save and stop.
      progress_file: where progress is shown.

    Raises:
      BadInput: data, a folder or an option that cannot be used.
      loop.Stopped: a signal or the deadline; all is saved.
    """
    # Only now: a mistyped flag should not wait for JAX.
    import jax
    from loop import Signals, train_trials
    from trial import Trial, begin

    todo = {
        cell: [seed for seed in seeds if grid.record(cell, seed) is None]
        for cell in cells
    }
    runs = sum(map(len, todo.values()))
    progress = GridProgress(progress_file, runs=runs)
    finished = len(cells) * len(seeds) - runs
    progress.note(f"{grid.path}: {runs} runs to make, {finished} finished before")
    if not runs:
        return
    devices = jax.local_devices()

    def begin_run(cell: Cell, seed: int, device: jax.Device) -> Trial:
        signals.check()
        out = grid.folder(cell, seed)
        begun = (out / "config.json").exists()
        if not begun and not (out / "checkpoints").exists():
            shutil.rmtree(out, ignore_errors=True)  # killed while it was made
        try:
            return begin(
                configure(cell, seed),
                data,
                out,
                resume=begun,
                note=progress.note,
                devices=[device],
            )
        except BadInput as error:
            raise BadInput(
                f"{error} (or delete {out}, and the run is made anew)"
            ) from error

    def finish_run(trial: Trial) -> str:
        signals.check()
        return _finish(trial)

    with Signals(deadline) as signals:
        try:
            for cell, left in todo.items():
                for group, share in _groups(left, len(devices), per_device):
                    trials = [
                        begin_run(cell, seed, devices[index // share])
                        for index, seed in enumerate(group)
                    ]
                    what = f"{cell.name} seed{'s' * (len(group) > 1)} {_listed(group)}"
                    progress.group(what, len(group), trials[0].run.config.epochs)
                    train_trials(trials, progress, signals)
                    progress.finished(", ".join(map(finish_run, trials)))
        finally:
            progress.close()


def _groups(
    seeds: Sequence[int], devices: int, per_device: int
) -> Iterator[tuple[Sequence[int], int]]:
    """Parts of the seeds to train side by side, and how many of each on a device."""
    while seeds:
        share = max(1, min(per_device, len(seeds) // devices))
        size = min(share * devices, len(seeds))
        yield seeds[:size], share
        seeds = seeds[size:]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _finish(trial: "Trial") -> str:
    """Writes the closing files of a run and returns its accuracy in words."""
    if trial.problem is not None:
        stochastic = trial.run.programs.method.stochastic
        trial.folder.write_result({"stochastic": stochastic, "diverged": trial.problem})
        return "diverged"
    result = trial.finish(picture=False)
    # Hundreds of runs of millions of weights: what is finished needs none of them.
    shutil.rmtree(trial.folder.checkpoints, ignore_errors=True)
    return f"{result['thresholding']:.1%} (averaging {result['averaging_mean']:.1%})"


def configure(
    preset: str | None, chosen: Mapping[str, Any], cell: Cell, seed: int
) -> Config:
    """Returns the options of one run of a grid.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
      cell: of the grid.
      seed: of the run.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    own = cell.options(seed)
    if cell.signed_constant:  # of all layers, or of those that the preset says
        constant = PRESETS.get(preset or "", {}).get("signed_constant", "none")
        own["signed_constant"] = "all" if constant == "none" else constant
    shared = {name: value for name, value in chosen.items() if knows(cell.method, name)}
    return resolve(preset, {**shared, **own})


def recipe(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that the runs of a method share, by method, as JSON values.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
    """
    return {
        method: {
            name: value
            for name, value in configure(
                preset, chosen, Cell("conv2", True, method, rescales[0], True), 0
            )
            .as_dict()
            .items()
            if name not in AXES
            and (name in _STOPPING or not FIELDS[name].metadata.get("free"))
        }
        for method, rescales in RESCALES.items()
    }

"""Page of a grid: its tables, to be sorted, its claims and its plots, in one file."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import write_text
from aslp_jax.sweeps.command import given
from aslp_jax.sweeps.grid import Grid, Record, read_settings
from aslp_jax.sweeps.report import NONE_FINISHED, Claim
from aslp_jax.sweeps.statistics import CONFIDENCE, t_quantile
from aslp_jax.trainer.run_folder import REPORT, writing
from aslp_jax.webpage.html import (
    Cell,
    Markup,
    Text,
    element,
    figure,
    page,
    picture,
    table,
)

INTERVAL = f"{100 * CONFIDENCE:g} % interval"
"""Heading of a column of `interval`."""


def interval(mean: float, std: float, count: int) -> Cell:
    """Returns the interval of a mean over seeds, by Student's t.

    Args:
      mean: mean over seeds.
      std: standard deviation over seeds (n - 1).
      count: number of seeds.

    Returns:
      The cell of a table; without text for fewer than two seeds.
    """
    if count < 2:
        return Cell("", math.nan)
    half = t_quantile(count - 1) * std / math.sqrt(count)
    return Cell(f"{mean - half:.2f} to {mean + half:.2f}", mean - half)


def write_grid_page(
    grid: Grid, title: str, introduction: str, sections: Sequence[tuple[str, Text]]
) -> None:
    """Writes `report.html` into the folder of a grid, its settings at the end.

    Args:
      grid: folder of the grid.
      title: title of the page.
      introduction: text below the title.
      sections: heading and content of each section; empty if no run is finished.

    Raises:
      BadInput: the folder cannot be written.
    """
    about = ("Settings", settings_table(read_settings(grid.path)))
    with writing(grid.path):
        every = [*(sections or [unfinished()]), about]
        write_page(grid.path, title, introduction, every)


def network_plots(
    grid: Grid, archs: Iterable[str], dataset: str, content: str
) -> Markup:
    """Returns the plots of a grid, one a network.

    Args:
      grid: folder of the grid, which holds `ARCH.png`.
      archs: name of the network of each finished run.
      dataset: name of the data set.
      content: quantity of the plots, for the text in place of the pictures.
    """
    return plots(
        {
            f"{arch.capitalize()} on {dataset}: {content}": grid.path / f"{arch}.png"
            for arch in dict.fromkeys(archs)
        }
    )


def lines_table(caption: str, lines: Iterable[Mapping[str, Any]]) -> Markup:
    """Returns a table of lines that have the same names.

    Args:
      caption: line above the table.
      lines: lines, at least one; the first name of a line names it. A value is a
        number, text, or a `Cell`.
    """
    rows = list(lines)
    head = [name.replace("_", " ") for name in rows[0]]
    return table(caption, head, [list(map(_cell, row.values())) for row in rows])


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Cell("" if value is None else str(value))
    text = str(value)
    long = isinstance(value, float) and len(text) > 7
    return Cell(f"{value:.4g}" if long else text, number)


def with_interval(
    name: str, line: Mapping[str, Any], mean: float, std: float, count: int
) -> dict[str, Any]:
    """Returns a line with its name, mean, interval and std in front.

    Args:
      name: name of the line.
      line: line of a CSV, `mean` and `std` among its names.
      mean: mean over seeds.
      std: standard deviation over seeds (n - 1).
      count: number of seeds.
    """
    within = interval(mean, std, count)
    front = {"name": name, "mean": line["mean"], INTERVAL: within, "std": line["std"]}
    return {**front, **line}


def runs_table(
    folder: Path, records: Sequence[Record], lines: Iterable[Mapping[str, Any]]
) -> Markup:
    """Returns a table of runs, which leads to their own reports.

    Args:
      folder: folder of the grid.
      records: finished runs, at least one.
      lines: lines of `runs.csv`, one a run.
    """
    rows = []
    for record, line in zip(records, lines, strict=True):
        name = f"{record.cell.name}-seed{record.seed}"
        own = Path("cells", name, REPORT)
        shown: Text = name
        if (folder / own).is_file():
            shown = element("a", name, href=own.as_posix())
        rows.append({"run": Cell(shown), **line})
    return lines_table("Finished runs, as in runs.csv", rows)


def claims_table(claims: Iterable[Claim]) -> Markup:
    """Returns the claims of a paper with evidence and verdict, as a table.

    Args:
      claims: claims of the paper.
    """
    rows = [list(map(Cell, claim)) for claim in claims]
    return table("Claims of the paper", ("claim", "evidence", "verdict"), rows)


def plots(paths: Mapping[str, Path]) -> Markup:
    """Returns plots side by side.

    Args:
      paths: PNG files, by the sentence that says what each shows.
    """
    figures = [
        figure(picture(path.read_bytes(), description), description)
        for description, path in paths.items()
    ]
    return element("div", figures, class_="figures plot")


def settings_table(settings: Mapping[str, Any]) -> Markup:
    """Returns the settings that the cells of a grid share, as a table.

    Args:
      settings: content of grid.json.
    """
    rows = [[Cell(name), Cell(value)] for name, value in _flat(settings)]
    return table("Settings of the grid, as in grid.json", ("setting", "value"), rows)


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    if not isinstance(value, dict):
        return [(name, "none" if value is None else str(value))]
    return itertools.chain.from_iterable(
        _flat(each, f"{name} {key}".strip()) for key, each in value.items()
    )


def unfinished() -> tuple[str, Text]:
    """Returns the section of a grid without a finished run."""
    return "Runs", element("p", NONE_FINISHED)


def write_page(
    folder: Path,
    title: str,
    introduction: str,
    sections: Iterable[tuple[str, Text]],
) -> None:
    """Writes `report.html`, with the command that was given last, for the whole grid.

    Args:
      folder: folder of the grid, or of a comparison; it exists.
      title: heading of the page.
      introduction: paragraph below the heading.
      sections: heading and content of each part.

    Raises:
      OSError: the folder cannot be written.
    """
    command = [
        element("p", "The command that was given last:"),
        element("pre", element("code", given())),
    ]
    parts = [*sections, ("Repeat it", command)]
    write_text(folder / REPORT, page(title, element("p", introduction), parts))

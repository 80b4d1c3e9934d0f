"""Plot for each network: accuracy against the weights that are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax.sweeps.budget.cells import LABELS, METHODS, Cell, anchors, paper_numbers
from aslp_jax.sweeps.figures import add_grid, save_figure


class Point(NamedTuple):
    """Cell in the plot.

    Attributes:
      kept: weights kept, in %, mean over seeds.
      accuracy: test accuracy in %, mean over seeds.
      std: standard deviation of the accuracy over seeds.
    """

    kept: float
    accuracy: float
    std: float


def plot(points: Mapping[Cell, Point], dataset: str, path: Path) -> None:
    """Plots test accuracy against kept weights, a line for each method.

    Points are means over seeds, bars one standard deviation. The paper's numbers are
    dashed, other published results are black.

    Args:
      points: points of the cells of one network.
      dataset: name of the data set.
      path: PNG to write; its folder exists.
    """
    from matplotlib.figure import Figure

    (arch,) = {cell.arch for cell in points}
    paper = paper_numbers(dataset)
    figure = Figure(figsize=(10, 5.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for index, method in enumerate(METHODS):
        handles += _plot_points(axes, points, method, f"C{index}")
        published = sorted(
            (100 * keep, number)
            for (of, name, keep), number in paper.items()
            if (of, name) == (arch, method)
        )
        if published:
            handles += axes.plot(
                *zip(*published, strict=True),
                color=f"C{index}",
                linestyle="--",
                alpha=0.6,
                label=f"{LABELS[method]}, Dupont et al. 2021",
            )
    for index, anchor in enumerate(anchors(dataset, arch)):
        handles += axes.plot(
            anchor.kept,
            anchor.accuracy,
            linestyle="none",
            marker="*x+"[index % 3],
            markersize=10,
            color="black",
            label=f"{anchor.method}, not augmented\n({anchor.source})",
        )
    axes.set_xscale("log")
    budgets = {cell.keep for cell in points} | {
        keep for of, _, keep in paper if of == arch
    }
    ticks = [100 * keep for keep in sorted(budgets)]
    axes.set_xticks(ticks, [f"{kept:g}" for kept in ticks])
    axes.minorticks_off()
    axes.set_xlabel("weights kept (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{arch} on {dataset}, mean and std over seeds")
    add_grid(axes, which="both")
    # By hand, because a legend would set dashed lines before those with bars.
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    save_figure(figure, path)


def _plot_points(
    axes: Any, points: Mapping[Cell, Point], method: str, colour: str
) -> list[Any]:
    """Plots the points of a method, a line for each scope, and returns the lines."""
    handles = []
    for scope in dict.fromkeys(cell.scope for cell in points):
        own = sorted(
            point
            for cell, point in points.items()
            if (cell.method, cell.scope) == (method, scope)
        )
        if own:
            kept, means, stds = zip(*own, strict=True)
            layered = scope == "layer"
            line = axes.errorbar(
                kept,
                means,
                yerr=stds,
                color=colour,
                marker="s" if layered else "o",
                linestyle=":" if layered else "-",
                markersize=4,
                capsize=2,
                label=LABELS[method] + (", a budget a layer" if layered else ""),
            )
            handles.append(line)
    return handles

"""A picture for each network: accuracy against the weights that are kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax._atomic import atomic_write
from aslp_jax.sweeps.budget.cells import LABELS, METHODS, Cell, anchors, paper_numbers


class Point(NamedTuple):
    """A cell in the picture.

    Attributes:
      kept: weights kept, in %, mean over seeds.
      accuracy: on the test set, in %, mean over seeds.
      std: its standard deviation over seeds.
    """

    kept: float
    accuracy: float
    std: float


def plot(points: Mapping[Cell, Point], dataset: str, path: Path) -> None:
    """Draws test accuracy against kept weights, a line for each method.

    Points are means over seeds, bars one standard deviation. The paper's numbers are
    dashed, what others published about the network is black.

    Args:
      points: by cell; cells of one network.
      dataset: name of the images.
      path: of the PNG; its folder exists.
    """
    from matplotlib.figure import Figure

    (arch,) = {cell.arch for cell in points}
    scopes = list(dict.fromkeys(cell.scope for cell in points))
    figure = Figure(figsize=(10, 5.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    paper = paper_numbers(dataset)
    handles: list[Any] = []
    for index, method in enumerate(METHODS):
        for scope in scopes:
            own = sorted(
                point
                for cell, point in points.items()
                if (cell.method, cell.scope) == (method, scope)
            )
            if own:
                kept, means, stds = zip(*own, strict=True)
                per_layer = ", a budget a layer" if scope == "layer" else ""
                drawn = axes.errorbar(
                    kept,
                    means,
                    yerr=stds,
                    color=f"C{index}",
                    marker="s" if scope == "layer" else "o",
                    linestyle=":" if scope == "layer" else "-",
                    markersize=4,
                    capsize=2,
                    label=LABELS[method] + per_layer,
                )
                handles.append(drawn)
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
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    # By hand, because a legend would set dashed lines before those with bars.
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")

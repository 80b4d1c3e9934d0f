"""A picture for each network: accuracy against the weights that are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from budget_layout import LABELS, METHODS, Cell, anchors, paper_numbers
from seed_statistics import mean_and_std

_WIDEST = 40
"""Characters of a label."""


def picture(
    accuracies: Mapping[Cell, Sequence[float]], dataset: str, path: Path
) -> None:
    """Draws test accuracy against kept weights, a line for each method.

    Points are means over seeds, bars one standard deviation. The paper's numbers are
    dashed, what others published about the network are stars.

    Args:
      accuracies: test accuracies in % by cell, one a seed; cells of one network.
      dataset: name of the images.
      path: of the PNG; its folder exists.
    """
    from matplotlib.figure import Figure

    (arch,) = {cell.arch for cell in accuracies}
    scopes = list(dict.fromkeys(cell.scope for cell in accuracies))
    figure = Figure(figsize=(7.5, 5.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    paper = paper_numbers(dataset)
    for index, method in enumerate(METHODS):
        for scope in scopes:
            points = sorted(
                (100 * cell.keep, *mean_and_std(values))
                for cell, values in accuracies.items()
                if (cell.method, cell.scope) == (method, scope)
            )
            if points:
                kept, means, stds = zip(*points, strict=True)
                per_layer = ", a budget a layer" if scope == "layer" else ""
                axes.errorbar(
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
        published = sorted(
            (100 * keep, number)
            for (of, name, keep), number in paper.items()
            if (of, name) == (arch, method)
        )
        if published:
            axes.plot(
                *zip(*published, strict=True),
                color=f"C{index}",
                linestyle="--",
                alpha=0.6,
                label=f"{LABELS[method]}, Dupont et al. 2021",
            )
    for index, anchor in enumerate(anchors(dataset, arch)):
        axes.plot(
            anchor.kept,
            anchor.accuracy,
            linestyle="none",
            marker="*x+"[index % 3],
            markersize=10,
            color="black",
            label=f"{anchor.method}, {anchor.source}"[:_WIDEST],
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("weights kept (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{arch} on {dataset}, mean and std over seeds")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    partial.replace(path)

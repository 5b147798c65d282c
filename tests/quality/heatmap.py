"""Heat maps of one mode: score by length and depth, one panel for each task."""

import math
import re

from report import in_order, length_name, mean


def panels_of(cases):
    """[(title, depths, lengths, rows of mean scores)], all tasks together first. None where nothing
    was measured."""
    lengths = sorted({case["length"] for case in cases})
    depths = sorted({case["depth"] for case in cases})
    tasks = in_order(case["task"] for case in cases)

    def panel(title, chosen):
        cells = {}
        for case in chosen:
            cells.setdefault((case["depth"], case["length"]), []).append(case["score"])
        rows = [[mean(cells.get((depth, length), [])) for length in lengths] for depth in depths]
        return title, depths, lengths, rows

    panels = [panel(task, [c for c in cases if c["task"] == task]) for task in tasks]
    return [panel("all tasks", cases), *panels] if len(tasks) > 1 else panels


def file_name(mode):
    return "heatmap_" + re.sub(r"[^a-z0-9]+", "-", mode.lower()).strip("-") + ".png"


def draw(cases, title, path):
    """Writes a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = panels_of(cases)
    columns = min(len(panels), 4)
    lines = math.ceil(len(panels) / columns)
    figure, axes = pyplot.subplots(lines, columns, squeeze=False, layout="constrained",
                                   figsize=(1.2 + 2.9 * columns, 1.1 + 2.2 * lines))
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    image = None
    for axis, (name, depths, lengths, rows) in zip(axes.flat, panels):
        values = [[math.nan if value is None else value for value in row] for row in rows]
        image = axis.imshow(values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(lengths)), [length_name(length) for length in lengths], fontsize=7)
        axis.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=7)
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                if value is not None:
                    axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7)
    figure.supxlabel("tokens", fontsize=9)
    figure.supylabel("depth of the fact", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="score")
    figure.savefig(path, dpi=130)
    pyplot.close(figure)

"""A picture of a network's blocks: their connections, cost and precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet_datasets.figures import new_figure, write_figure
from msfnet_runtime.spec import Block

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = tuple[float, float]
"""Column and row; rows count downwards, one for each encoder stage."""

_COLUMNS = {"encoder": 0.0, "eda": 1.0, "usf": 2.0, "decoder": 4.0}

_PLACES: dict[str, Place] = {
    "prepare": (0, 0),
    "eda": (1, 3),
    "usf.concat": (3, 4),
    "usf.fuse": (3, 3),
    "usf.rdr": (3, 2),
    "decoder.bottom": (4, 5),
    "decoder.head": (4, 0),
    "finish": (3, 0),
}
"""Places of blocks without a stage's number, so that a stage's blocks lie in one row."""

_COLOURS = {"fp32": "#c6dbef", "fp16": "#fdd0a2", "int8": "#c7e9c0"}
_WIDTH, _HEIGHT = 0.78, 0.62


def draw_blocks(blocks: Sequence[Block], path: Path, title: str) -> None:
    """Draw the blocks as a PNG; a block's bar is its share of the GMAC.

    Raises:
        MsfnetError: matplotlib is missing, or the file cannot be written.
    """
    places = place_blocks([block.name for block in blocks])
    columns = max(x for x, _ in places.values()) + 1
    rows = max(y for _, y in places.values()) + 1
    figure = new_figure(round(230 * columns), round(105 * rows + 60))
    axes = figure.add_subplot()
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), title=title)
    axes.axis("off")
    largest = max(block.macs for block in blocks) or 1
    for block in blocks:
        for feeder in block.inputs:
            _arrow(axes, places[feeder], places[block.name])
    for block in blocks:
        _box(axes, block, places[block.name], block.macs / largest)
    write_figure(figure, path)


def place_blocks(names: Sequence[str]) -> dict[str, Place]:
    """Return every block's place; those of other networks go below each other on the right."""
    places: dict[str, Place] = {}
    for name in names:
        parent, _, stage = name.partition(".stage")
        if name in _PLACES:
            places[name] = _PLACES[name]
        elif stage.isdecimal() and parent in _COLUMNS:
            places[name] = _COLUMNS[parent], float(stage)
        else:
            free = sum(x == 5 for x, _ in places.values())
            places[name] = 5.0, float(free)
    return places


def _arrow(axes: Axes, start: Place, end: Place) -> None:
    """Draw an arrow from the side of one box to the facing side of another."""
    (x0, y0), (x1, y1) = start, end
    if x0 == x1:
        down = math.copysign(_HEIGHT / 2, y1 - y0)
        tail, head, bend = (x0, y0 + down), (x1, y1 - down), 0.0
    else:
        side = math.copysign(_WIDTH / 2, x1 - x0)
        tail, head = (x0 + side, y0), (x1 - side, y1)
        bend = 0.12 if y0 == y1 and abs(x1 - x0) > 1 else 0.0
    axes.annotate(
        "",
        xy=head,
        xytext=tail,
        zorder=0,
        arrowprops={
            "arrowstyle": "-|>",
            "color": "0.55",
            "linewidth": 0.8,
            "connectionstyle": f"arc3,rad={bend}",
        },
    )


def _box(axes: Axes, block: Block, place: Place, share: float) -> None:
    """Draw one block: name, shape, cost, precision, and its cost as a bar."""
    from matplotlib.patches import Rectangle

    x, y = place[0] - _WIDTH / 2, place[1] - _HEIGHT / 2
    colour = _COLOURS.get(block.precision.partition("+")[0], "0.9")
    axes.add_patch(Rectangle((x, y), _WIDTH, _HEIGHT, facecolor="white", edgecolor="0.3", lw=0.8))
    axes.add_patch(Rectangle((x, y), _WIDTH, 0.2, facecolor=colour, edgecolor="0.3", lw=0.8))
    axes.add_patch(Rectangle((x, y + _HEIGHT - 0.05), _WIDTH * share, 0.05, facecolor="0.3"))
    texts = (
        (0.10, f"{block.name}  {block.precision}", "bold"),
        (0.30, "x".join(map(str, block.shape)), "normal"),
        (0.46, f"{block.macs / 1e9:.3g} GMAC, {block.parameters / 1e3:.3g} k par.", "normal"),
    )
    for offset, text, weight in texts:
        axes.text(
            place[0], y + offset, text, ha="center", va="center", fontsize=6.5, fontweight=weight
        )

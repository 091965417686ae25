"""PNG figures, on matplotlib: curves, sheets of frames, depth and error with a scale in metres.

matplotlib is imported when a figure is made, so that measuring does not need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.files import atomic_path
from msfnet_runtime.libraries import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DPI = 100

_NOTHING = float(np.finfo(np.float32).min)
"""Below any depth or error; what OpenCV puts around an image that it dilates."""

DEPTH_COLOURS = "turbo_r"
"""Near is red, far is blue, as in the runtime's videos."""


def new_figure(width: int, height: int) -> Figure:
    """Return an empty figure of (width, height) pixels that needs no display.

    Raises:
        MsfnetError: matplotlib is missing, or does not load.
    """
    require("matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        MsfnetError: the file cannot be written.
    """
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")


def show_image(axes: Axes, image: NDArray[np.uint8], title: str = "") -> None:
    """Draw an (H, W, 3) uint8 RGB image."""
    axes.imshow(image)
    _frame(axes, title)


def show_depth(
    axes: Axes, depth: NDArray[np.floating], range_m: tuple[float, float], title: str = ""
) -> None:
    """Draw depth (H, W) in metres on a logarithmic scale; what is not above 0 stays grey."""
    from matplotlib.colors import LogNorm

    shown = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    picture = axes.imshow(
        shown, cmap=DEPTH_COLOURS, norm=LogNorm(*range_m), interpolation="nearest"
    )
    _scale(axes, picture, "m")
    _frame(axes, title)


def show_error(axes: Axes, error: NDArray[np.floating], limit_m: float, title: str = "") -> None:
    """Draw a signed error (H, W) in metres, red where it is too far; NaN stays grey."""
    picture = axes.imshow(
        error, cmap="RdBu_r", vmin=-limit_m, vmax=limit_m, interpolation="nearest"
    )
    _scale(axes, picture, "m")
    _frame(axes, title)


def widen_points(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Spread the points of a sparse map (H, W) over 5x5, for the eye alone.

    What is 0 or not finite counts as nothing and is NaN where no point comes near; where points
    meet, the largest stays.
    """
    known = np.isfinite(values) & (values != 0)
    filled = np.where(known, values, _NOTHING).astype(np.float32)
    widened = np.asarray(cv2.dilate(filled, np.ones((5, 5), np.uint8)))
    return np.where(widened > _NOTHING, widened, np.nan)


def _scale(axes: Axes, picture: AxesImage, unit: str) -> None:
    axes.set_facecolor("0.85")
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.02)
    bar.ax.tick_params(labelsize=6, which="both")
    if bar.ax.get_yscale() == "log":  # 2 and 30, not 2 x 10^0 and 3 x 10^1
        bar.ax.yaxis.set_major_formatter("{x:g}")
        bar.ax.yaxis.set_minor_formatter("{x:g}")
    bar.set_label(unit, fontsize=7)


def _frame(axes: Axes, title: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=7)

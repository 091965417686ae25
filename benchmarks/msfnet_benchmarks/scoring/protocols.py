"""Evaluation protocols by name: each owns its ground truth, region, range and resampling.

Published numbers disagree in the second decimal because of these choices, so a result is never
printed or stored without its protocol's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.alignment import Alignment, align
from msfnet_benchmarks.scoring.metrics import DepthMetrics, ScoredPixels, scored_pixels
from msfnet_datasets.ground_truth import GroundTruth
from msfnet_runtime import MsfnetError

Region = tuple[int, int, int, int]
"""(top, bottom, left, right) in pixels; bottom and right are exclusive."""

_SHARES: Mapping[str, tuple[float, float, float, float]] = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
"""Rows and columns of Garg et al. 2016 and of Eigen et al. 2014 (as monodepth's evaluation has
them), as shares of the height and the width."""

_NYU_REGIONS: Mapping[str, Region] = {
    "nyu_densedepth": (20, 460, 24, 616),
    "nyu_bts": (45, 471, 41, 601),
}

_KB_SIZE = (352, 1216)
"""Height and width of the KITTI benchmark crop."""

_KITTI = (1e-3, 80.0)
_NYU = (1e-3, 10.0)
"""What the sensors of the two data sets can measure, metres."""

_NYU_HALF = (240, 320)
_NYU_ROWS, _NYU_COLUMNS = slice(6, 234), slice(8, 312)
"""The centre 228x304 of it."""


@dataclass(frozen=True)
class Protocol:
    """One way to score depth. Get them from :data:`PROTOCOLS`."""

    name: str
    ground_truth: GroundTruth | None
    """Where the ground truth comes from; None: wherever a data set has it from."""
    crop: Literal["none", "garg", "eigen", "kb_garg", "nyu_densedepth", "nyu_bts"]
    """The region that is scored."""
    range_m: tuple[float, float] = (0.0, np.inf)
    """Ground truth strictly between these is scored, metres."""
    clip_m: tuple[float, float] | None = None
    """The prediction is clipped to these before it is scored, metres."""
    image: Literal["full", "kb", "nyu_half_centre"] = "full"
    """What the model sees: the frame, KITTI's benchmark crop, or the half-size centre crop."""
    averaging: Literal["images", "pooled"] = "images"
    """The RMSE that those who made the protocol give: the mean of the images' RMSE, or the root
    of their mean squared error. Every other metric is a mean over images; both RMSE are reported.
    """

    bins_m: tuple[float, ...] = (0.0, 10.0, 20.0, 40.0, 80.0)
    """The edges of the range bins that errors are reported by, metres."""
    dense: bool = False
    """The ground truth is dense enough to have depth boundaries."""
    ordered: bool = True
    """The frames of one folder follow each other in time: KITTI's drives do."""

    def scores(self, kind: GroundTruth) -> bool:
        """Return whether the protocol is defined for a kind of ground truth."""
        return self.ground_truth in (None, kind)

    def describe(self) -> str:
        """Return the protocol's rules as text."""
        low, high = self.range_m
        limits = f"{low:g} to {high:g} m" if high < np.inf else "all depths"
        clip = "clipped to {:g} to {:g} m".format(*self.clip_m) if self.clip_m else "not clipped"
        rmse = "pooled" if self.averaging == "pooled" else "mean"
        source = self.ground_truth or "any"
        region = "whole" if self.crop == "none" else self.crop
        return (
            f"ground truth: {source}, {limits}; scored region: {region}; image: {self.image}; "
            f"prediction: {clip}; papers report the {rmse} RMSE"
        )

    def region(self, height: int, width: int) -> Region:
        """Return the scored region of a (height, width) depth map.

        Raises:
            MsfnetError: the size is not one the protocol is defined for.
        """
        if self.crop in _NYU_REGIONS:
            if (height, width) != (480, 640):
                raise MsfnetError(
                    f"protocol {self.name} is defined for 480x640, not {height}x{width}; use "
                    "nyu_hu for half-size data, or indoor"
                )
            return _NYU_REGIONS[self.crop]
        if self.crop in _SHARES:
            return _shares(_SHARES[self.crop], height, width)
        if self.crop == "kb_garg":
            top, _, left, _ = _kb(height, width)
            inner = _shares(_SHARES["garg"], *_KB_SIZE)
            return top + inner[0], top + inner[1], left + inner[2], left + inner[3]
        return 0, height, 0, width

    def prepare(
        self, image: NDArray[np.uint8], ground_truth: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Bring a frame and its ground truth to what the model sees and what is scored.

        ``nyu_half_centre`` halves 480x640 (the image over areas, depth by nearest) and takes the
        centre 228x304; 240x320 counts as halved already. ``kb`` crops the image; ground truth
        stays whole, since the prediction is put back into the full frame.

        Raises:
            MsfnetError: a size the protocol is not defined for.
        """
        if image.shape[:2] != ground_truth.shape:
            raise MsfnetError(
                f"the image is {image.shape[:2]}, its ground truth {ground_truth.shape}; "
                "check that they belong together"
            )
        if self.image == "nyu_half_centre":
            return _half_centre_image(image), self.prepare_depth(ground_truth)
        if self.image == "kb":
            top, bottom, left, right = _kb(*ground_truth.shape)
            return image[top:bottom, left:right], ground_truth
        return image, ground_truth

    def prepare_depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring depth of a whole frame, (H, W) metres, to the grid of what the model sees.

        Raises:
            MsfnetError: a size the protocol is not defined for.
        """
        if self.image == "nyu_half_centre":
            return _half_centre_depth(self.name, depth)
        if self.image == "kb":
            top, bottom, left, right = _kb(*depth.shape)
            return depth[top:bottom, left:right]
        return depth

    def restore(
        self, prediction: NDArray[np.float32], shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Put a prediction back into the grid of the ground truth; NaN where there is none."""
        if prediction.shape == shape:
            return prediction
        top, bottom, left, right = _kb(*shape) if self.image == "kb" else (0, 0, 0, 0)
        if prediction.shape != (bottom - top, right - left):
            raise MsfnetError(
                f"the prediction is {prediction.shape}, protocol {self.name} expects {shape}"
            )
        whole = np.full(shape, np.nan, np.float32)
        whole[top:bottom, left:right] = prediction
        return whole

    def clip(self, prediction: NDArray[np.float32]) -> NDArray[np.float32]:
        """Confine a prediction in metres to :attr:`clip_m`, where the protocol has it."""
        return prediction if self.clip_m is None else np.clip(prediction, *self.clip_m)

    def valid(self, ground_truth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where ground truth (H, W) metres is scored: inside the region and the range."""
        low, high = self.range_m
        top, bottom, left, right = self.region(*ground_truth.shape)
        mask = np.zeros(ground_truth.shape, np.bool_)
        inside = ground_truth[top:bottom, left:right]
        mask[top:bottom, left:right] = (inside > low) & (inside < high)
        return mask

    def pixels(
        self,
        *,
        prediction: NDArray[np.float32],
        ground_truth: NDArray[np.float32],
        alignment: Alignment | None = None,
    ) -> ScoredPixels:
        """Return what is scored of a prediction, both (H, W) metres as :meth:`prepare` left them.

        Aligned predictions are confined to :attr:`clip_m`, or else to 1e-3 to 10 m.

        Raises:
            MsfnetError: nothing to score, or shapes that do not fit.
        """
        whole = self.restore(prediction, (ground_truth.shape[0], ground_truth.shape[1]))
        if alignment is None:
            whole = self.clip(whole)
        scored = scored_pixels(
            prediction=whole, ground_truth=ground_truth, valid=self.valid(ground_truth)
        )
        if alignment is None:
            return scored
        fitted = align(
            prediction=scored.prediction,
            ground_truth=scored.ground_truth,
            how=alignment,
            range_m=self.clip_m or _NYU,
        )
        return ScoredPixels(fitted, scored.ground_truth)

    def score(
        self, *, prediction: NDArray[np.float32], ground_truth: NDArray[np.float32]
    ) -> DepthMetrics:
        """Score a prediction without alignment; arguments and errors are :meth:`pixels`'."""
        return self.pixels(prediction=prediction, ground_truth=ground_truth).metrics()


def _shares(shares: tuple[float, float, float, float], height: int, width: int) -> Region:
    top, bottom, left, right = shares
    return int(top * height), int(bottom * height), int(left * width), int(right * width)


def _kb(height: int, width: int) -> Region:
    if height < _KB_SIZE[0] or width < _KB_SIZE[1]:
        raise MsfnetError(
            f"KITTI's benchmark crop needs at least 352x1216, not {height}x{width}; use kitti_raw"
        )
    top, left = height - _KB_SIZE[0], int((width - _KB_SIZE[1]) / 2)
    return top, top + _KB_SIZE[0], left, left + _KB_SIZE[1]


def _half_centre_depth(name: str, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = _NYU_HALF
    if depth.shape == (2 * height, 2 * width):
        depth = np.asarray(cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST))
    if depth.shape != _NYU_HALF:
        raise MsfnetError(f"protocol {name} takes 480x640 or 240x320 frames, not {depth.shape}")
    return np.ascontiguousarray(depth[_NYU_ROWS, _NYU_COLUMNS])


def _half_centre_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = _NYU_HALF
    if image.shape[:2] == (2 * height, 2 * width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return np.ascontiguousarray(image[_NYU_ROWS, _NYU_COLUMNS])


_room = partial(Protocol, bins_m=(0.0, 2.0, 4.0, 6.0, 10.0), dense=True, ordered=False)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            _room("nyu_hu", "nyu_depth", "none", image="nyu_half_centre", averaging="pooled"),
            _room(
                *("nyu_densedepth", "nyu_depth", "nyu_densedepth"),
                clip_m=(0.1, 10.0),
                averaging="pooled",
            ),
            _room("nyu_bts", "nyu_depth", "nyu_bts", _NYU, _NYU),
            Protocol("kitti_raw", "velodyne", "garg", _KITTI, _KITTI),
            Protocol("kitti_raw_eigen", "velodyne", "eigen", _KITTI, _KITTI),
            Protocol("kitti_raw_full", "velodyne", "none", _KITTI, _KITTI),
            Protocol("kitti_raw_lidar_x", "velodyne_lidar_x", "garg", _KITTI, _KITTI),
            Protocol("kitti_bts", "improved", "garg", _KITTI, _KITTI, "kb"),
            Protocol("kitti_adabins", "improved", "kb_garg", _KITTI, _KITTI, "kb"),
            _room("indoor", None, "none", _NYU, _NYU),
            Protocol("outdoor", None, "none", _KITTI, _KITTI, ordered=False),
        )
    }
)
"""Every protocol by name; ``kitti_raw_full`` is the paper's: velodyne over the full image.

``indoor`` and ``outdoor`` take frames of any size and any data set's ground truth.
"""


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        MsfnetError: unknown; the line lists the names.
    """
    if name not in PROTOCOLS:
        raise MsfnetError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

"""Evaluation protocols by name: each owns its ground truth, region, range and resampling.

Published numbers disagree in the second decimal because of these choices, so a result is never
printed or stored without its protocol's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.metrics import DepthMetrics, depth_metrics
from msfnet_runtime import MsfnetError

Region = tuple[int, int, int, int]
"""(top, bottom, left, right) in pixels; bottom and right are exclusive."""

GroundTruth = Literal["nyu_depth", "velodyne", "improved"]

_GARG = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
"""Rows and columns of Garg et al. 2016 as shares of the height and the width."""

_KB_SIZE = (352, 1216)
"""Height and width of the KITTI benchmark crop."""

_NYU_HALF = (240, 320)
_NYU_CENTRE = (228, 304)


@dataclass(frozen=True)
class Protocol:
    """One way to score depth. Get them from :data:`PROTOCOLS`."""

    name: str
    ground_truth: GroundTruth
    """Where the ground truth comes from."""
    crop: Literal["none", "garg", "kb_garg", "nyu_densedepth", "nyu_bts"]
    """The region that is scored."""
    range_m: tuple[float, float] = (0.0, np.inf)
    """Ground truth strictly between these is scored, metres."""
    clip_m: tuple[float, float] | None = None
    """The prediction is clipped to these before it is scored, metres."""
    image: Literal["full", "kb", "nyu_half_centre"] = "full"
    """What the model sees: the frame, KITTI's benchmark crop, or the half-size centre crop."""

    def region(self, height: int, width: int) -> Region:
        """Return the scored region of a (height, width) depth map.

        Raises:
            MsfnetError: the size is not one the protocol is defined for.
        """
        if self.crop == "garg":
            return _garg(height, width)
        if self.crop == "kb_garg":
            top, _, left, _ = _kb(height, width)
            inner = _garg(*_KB_SIZE)
            return top + inner[0], top + inner[1], left + inner[2], left + inner[3]
        if self.crop == "nyu_densedepth":
            return self._nyu_region(height, width, (20, 460, 24, 616))
        if self.crop == "nyu_bts":
            return self._nyu_region(height, width, (45, 471, 41, 601))
        return 0, height, 0, width

    def _nyu_region(self, height: int, width: int, region: Region) -> Region:
        if (height, width) != (480, 640):
            raise MsfnetError(
                f"protocol {self.name} is defined for 480x640, not {height}x{width}; use nyu_hu "
                "for half-size data"
            )
        return region

    def prepare(
        self, image: NDArray[np.uint8], ground_truth: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Bring a frame and its ground truth to what the model sees and what is scored.

        ``nyu_half_centre`` halves 480x640 (the image over areas, depth by nearest) and takes the
        centre 228x304; 240x320 is taken as halved already. ``kb`` crops the image; ground truth
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
            return _half_centre(self.name, image, ground_truth)
        if self.image == "kb":
            top, bottom, left, right = _kb(*ground_truth.shape)
            return image[top:bottom, left:right], ground_truth
        return image, ground_truth

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

    def valid(self, ground_truth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where ground truth (H, W) metres is scored: inside the region and the range."""
        low, high = self.range_m
        top, bottom, left, right = self.region(*ground_truth.shape)
        mask = np.zeros(ground_truth.shape, np.bool_)
        inside = ground_truth[top:bottom, left:right]
        mask[top:bottom, left:right] = (inside > low) & (inside < high)
        return mask

    def score(
        self, *, prediction: NDArray[np.float32], ground_truth: NDArray[np.float32]
    ) -> DepthMetrics:
        """Score a prediction against ground truth, both (H, W) metres as :meth:`prepare` left them.

        Raises:
            MsfnetError: nothing to score, or shapes that do not fit.
        """
        whole = self.restore(prediction, (ground_truth.shape[0], ground_truth.shape[1]))
        if self.clip_m is not None:
            whole = np.clip(whole, *self.clip_m)
        return depth_metrics(
            prediction=whole, ground_truth=ground_truth, valid=self.valid(ground_truth)
        )


def _garg(height: int, width: int) -> Region:
    top, bottom, left, right = _GARG
    return int(top * height), int(bottom * height), int(left * width), int(right * width)


def _kb(height: int, width: int) -> Region:
    if height < _KB_SIZE[0] or width < _KB_SIZE[1]:
        raise MsfnetError(
            f"KITTI's benchmark crop needs at least 352x1216, not {height}x{width}; use kitti_raw"
        )
    top, left = height - _KB_SIZE[0], int((width - _KB_SIZE[1]) / 2)
    return top, top + _KB_SIZE[0], left, left + _KB_SIZE[1]


def _half_centre(
    name: str, image: NDArray[np.uint8], depth: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    height, width = _NYU_HALF
    if depth.shape == (2 * height, 2 * width):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        depth = np.asarray(cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST))
    if depth.shape != _NYU_HALF:
        raise MsfnetError(f"protocol {name} takes 480x640 or 240x320 frames, not {depth.shape}")
    top, left = (height - _NYU_CENTRE[0]) // 2, (width - _NYU_CENTRE[1]) // 2
    rows, columns = slice(top, top + _NYU_CENTRE[0]), slice(left, left + _NYU_CENTRE[1])
    return np.ascontiguousarray(image[rows, columns]), np.ascontiguousarray(depth[rows, columns])


_KITTI_RANGE = (1e-3, 80.0)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol("nyu_hu", "nyu_depth", "none", image="nyu_half_centre"),
            Protocol("nyu_densedepth", "nyu_depth", "nyu_densedepth", clip_m=(0.1, 10.0)),
            Protocol("nyu_bts", "nyu_depth", "nyu_bts", (1e-3, 10.0), (1e-3, 10.0)),
            Protocol("kitti_raw", "velodyne", "garg", _KITTI_RANGE, _KITTI_RANGE),
            Protocol("kitti_raw_full", "velodyne", "none", _KITTI_RANGE, _KITTI_RANGE),
            Protocol("kitti_bts", "improved", "garg", _KITTI_RANGE, _KITTI_RANGE, "kb"),
            Protocol("kitti_adabins", "improved", "kb_garg", _KITTI_RANGE, _KITTI_RANGE, "kb"),
        )
    }
)
"""Every protocol by name; ``kitti_raw_full`` is the paper's: velodyne over the full image."""


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        MsfnetError: unknown; the line lists the names.
    """
    if name not in PROTOCOLS:
        raise MsfnetError(f"unknown protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

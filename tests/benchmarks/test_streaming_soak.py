"""The soak tells what lasts from what leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks.streaming_soak import LOSSES, SIZE, brightness_engine, soak
from msfnet_runtime import DepthEstimator


@pytest.mark.slow
def test_a_short_soak_keeps_every_frame_and_gives_all_back(tmp_path: Path) -> None:
    """Ten losses, a viewer that stops reading, every frame in both outputs; nothing left open."""
    with DepthEstimator(brightness_engine()) as estimator:
        report = soak(estimator, tmp_path, frames=240, fps=300)

    assert (report.stats.losses, report.pictures, report.video_frames) == (LOSSES, 240, 240)
    assert report.descriptors <= 0
    assert report.threads <= 0
    assert "survived" in report.text()
    leaking = replace(report, growth=0.04)
    assert not leaking.passed
    assert "NO" in leaking.text()


def test_brightness_is_a_model() -> None:
    """White is near, black is far, in between lies between."""
    engine = brightness_engine()
    for level, metres in ((0, 80.0), (255, 1.0), (102, 48.4)):
        depth = engine.infer(np.full((1, *SIZE, 3), level, np.uint8))
        np.testing.assert_allclose(depth, metres, rtol=1e-5)

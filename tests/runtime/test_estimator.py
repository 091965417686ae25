"""The estimator turns frames of any size into metric depth at that size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from msfnet_runtime import DepthEstimator, Frame, MsfnetError
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.preprocess import prepare
from tests.onnx_models import conv_model, conv_reference
from tests.specs import deploy_spec, network_spec


def test_an_onnx_file_is_all_it_takes(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """Open, call, read metres: equal to the same steps in NumPy at the network's own grid."""
    spec = network_spec(32, 64)
    onnx.save(conv_model(spec), tmp_path / "model.onnx")
    frame = Frame(photo[:16, :32], index=7, timestamp_s=0.7)

    with DepthEstimator.open(tmp_path / "model.onnx") as estimator:
        depth = estimator(frame)

    expected = np.clip(conv_reference(prepare(frame.image, spec)), 0.5, 80.0)[0, 0]
    np.testing.assert_allclose(depth.values, expected, rtol=1e-5)
    assert (depth.index, depth.timestamp_s) == (7, 0.7)


def test_a_frame_of_another_size_gets_depth_at_its_own_size(photo: NDArray[np.uint8]) -> None:
    """The deploy graph answers at its frame size; the estimator brings it back."""
    spec = deploy_spec(48, 80)
    ramp = np.broadcast_to(np.linspace(1, 9, 80, dtype=np.float32), (1, 1, 48, 80))
    estimator = DepthEstimator(FakeEngine(spec, lambda batch: ramp))

    depth = estimator(Frame(photo))

    assert depth.values.shape == photo.shape[:2]
    assert np.all(np.diff(depth.values[0]) >= 0)
    assert depth.values[0, 65] == pytest.approx(5.0, abs=0.1)


def test_a_closed_estimator_says_so(photo: NDArray[np.uint8]) -> None:
    """Use after close is a mistake with a name, closing twice is none."""
    estimator = DepthEstimator(
        FakeEngine(deploy_spec(), lambda batch: np.ones((1, 1, 48, 80), np.float32))
    )
    estimator.close()
    estimator.close()

    with pytest.raises(MsfnetError, match="closed"):
        estimator(Frame(photo))

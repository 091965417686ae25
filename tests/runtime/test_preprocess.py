"""Tests the preprocessing of frames and outputs against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.preprocess import finish, prepare, to_metres
from tests.specs import deploy_spec, network_spec


def bilinear(image: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Resize (H, W, C) with half-pixel centres and clamped borders, by the definition."""

    def taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(np.intp)
        return low, np.minimum(low + 1, old - 1), position - low

    top, bottom, y = taps(image.shape[0], height)
    left, right, x = taps(image.shape[1], width)
    rows = image[top] * (1 - y)[:, None, None] + image[bottom] * y[:, None, None]
    mixed = rows[:, left] * (1 - x)[None, :, None] + rows[:, right] * x[None, :, None]
    return np.asarray(mixed)


def test_a_network_batch_is_resized_then_normalised(photo: NDArray[np.uint8]) -> None:
    """It is bilinear with half-pixel centres, scaled to 0..1, normalised as ImageNet, NCHW."""
    spec = network_spec(32, 64)

    batch = prepare(photo, spec)

    expected = bilinear(photo.astype(float), 32, 64) / 255
    expected = (expected - np.array(spec.mean)) / np.array(spec.std)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[0], expected.transpose(2, 0, 1), atol=2e-4)


def test_a_deploy_batch_is_the_frame_itself_when_sizes_agree(photo: NDArray[np.uint8]) -> None:
    """There is no computation outside the graph."""
    batch = prepare(photo, deploy_spec(*photo.shape[:2]))

    np.testing.assert_array_equal(batch, photo[None])


def test_inverse_depth_is_clamped_then_inverted_then_resized() -> None:
    """A prediction of 0 is the farthest depth; resizing averages metres, not reciprocals."""
    spec = network_spec(4, 4, depth_kind="inverse", depth_range_m=(0.1, 10.0), inverse_scale=10.0)
    prediction = np.array([[0.0, 2.0], [200.0, 5.0]], np.float32)

    values, valid = finish(prediction[None, None], (4, 4), spec)

    metres = np.array([[10.0, 5.0], [0.1, 2.0]])
    np.testing.assert_allclose(values, bilinear(metres[..., None], 4, 4)[..., 0], rtol=1e-5)
    assert valid.all()


def test_metric_predictions_are_clamped_to_the_models_range() -> None:
    """No depth is outside the range of the spec."""
    spec = network_spec(depth_range_m=(1.0, 80.0))

    metres = to_metres(np.array([-3.0, 0.5, 40.0, 500.0], np.float32), spec)

    np.testing.assert_array_equal(metres, np.array([1.0, 1.0, 40.0, 80.0], np.float32))


def test_depth_that_is_not_finite_or_positive_is_not_valid() -> None:
    """Wrong outputs of an engine never look like measurements."""
    depth = np.array([[[[np.nan, np.inf], [3.0, 0.0]]]], np.float32)

    _, valid = finish(depth, (2, 2), deploy_spec(2, 2))

    np.testing.assert_array_equal(valid, [[False, False], [True, False]])


@pytest.mark.parametrize(
    "image",
    [
        np.ones((8, 8), np.uint8),
        np.ones((8, 8, 4), np.uint8),
        np.ones((8, 8, 3), np.float32),
        np.ones((0, 8, 3), np.uint8),
    ],
)
def test_images_that_are_not_rgb_are_refused(image: NDArray[np.uint8]) -> None:
    """These are grey, RGBA, float and empty images."""
    with pytest.raises(MsfnetError, match="uint8 RGB"):
        prepare(image, network_spec())


@pytest.mark.parametrize(
    "output",
    [
        np.ones((1, 3072), np.float32),
        np.ones((1, 2, 4, 4), np.float32),
        np.ones((1, 1, 4, 4), np.int64),
        np.full((1, 1, 4, 4), "1"),
    ],
)
def test_an_output_that_is_no_map_is_refused(output: NDArray[Any]) -> None:
    """The spec of a file can say what its graph does not do."""
    with pytest.raises(MsfnetError, match="not one map of floating-point numbers"):
        finish(output, (4, 4), network_spec())

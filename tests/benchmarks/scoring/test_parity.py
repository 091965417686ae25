from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.parity import ParityAccumulator, compare
from msfnet_runtime import DepthMap, Frame, MsfnetError


def depth(values: NDArray[np.float64], valid: NDArray[np.bool_] | None = None) -> DepthMap:
    """Return a depth map, valid everywhere if not said otherwise."""
    mask = np.ones(values.shape, np.bool_) if valid is None else valid
    return DepthMap(values.astype(np.float32), mask)


@pytest.mark.parametrize("seed", range(6))
def test_percentiles_are_numpys_within_half_a_bin(seed: int) -> None:
    """Log-normal differences over three frames, against all of them held at once, within 0.24 %."""
    rng = np.random.default_rng(seed)
    accumulator, everything = ParityAccumulator(), []
    for _ in range(3):
        reference = rng.uniform(1, 80, (60, 70))
        candidate = reference * (1 + rng.lognormal(-6, 2, (60, 70)))
        accumulator.add(candidate=depth(candidate), reference=depth(reference))
        y, g = (np.float64(np.float32(values)) for values in (candidate, reference))
        everything.append(np.abs(y - g) / g)

    report = accumulator.report()

    p50, p99, p999 = np.percentile(everything, (50, 99, 99.9), method="inverted_cdf")
    assert report.p50 == pytest.approx(p50, rel=0.0024)
    assert report.p99 == pytest.approx(p99, rel=0.0024)
    assert report.p999 == pytest.approx(p999, rel=0.0024)
    assert report.maximum == pytest.approx(np.max(everything))
    assert (report.frames, report.pixels) == (3, 3 * 60 * 70)


def test_agreement_is_symmetric_and_strict() -> None:
    """Within a factor of 1.01 up or down, not 1 % of the reference: three of six."""
    reference = np.full((1, 6), 10.0)
    candidate = np.array([[10.05, 9.95, 10.0999, 9.9005, 10.2, 9.8]])

    accumulator = ParityAccumulator()
    accumulator.add(candidate=depth(candidate), reference=depth(reference))

    assert accumulator.report().agreement == 0.5


def test_equal_models_differ_by_nothing() -> None:
    """Exactly nothing, not a bin's lower edge."""

    def answer(frame: Frame) -> DepthMap:
        return depth(frame.image[..., 0].astype(float) + 1)

    frames = [Frame(np.full((4, 5, 3), i, np.uint8), i) for i in range(3)]

    report = compare(answer, answer, frames)

    assert (report.p50, report.p999, report.maximum, report.agreement) == (0, 0, 0, 1)


def test_only_pixels_the_reference_has_are_compared() -> None:
    """And the candidate must have all of them."""
    values, mask = np.full((2, 2), 4.0), np.array([[True, False], [True, True]])
    worse = np.array([[4.4, 99.0], [4.0, 4.0]])

    accumulator = ParityAccumulator()
    accumulator.add(candidate=depth(worse), reference=depth(values, mask))

    assert accumulator.report().maximum == pytest.approx(0.1, rel=1e-5)
    assert accumulator.report().pixels == 3
    with pytest.raises(MsfnetError, match="candidate has no depth"):
        accumulator.add(candidate=depth(values, mask), reference=depth(values))


def test_differences_beyond_the_bins_are_still_told_apart() -> None:
    """Below 1e-10 counts as none; above 1e4 the exact maximum is given."""
    reference = np.full((1, 3), 1.0)
    candidate = np.array([[1.0, 5e4, 7e4]])

    accumulator = ParityAccumulator()
    accumulator.add(candidate=depth(candidate), reference=depth(reference))
    report = accumulator.report()

    assert report.p50 == report.p999 == report.maximum == pytest.approx(7e4 - 1)
    assert report.agreement == pytest.approx(1 / 3)


def test_depth_maps_of_two_sizes_are_refused_and_nothing_has_no_report() -> None:
    """Each error is one line."""
    accumulator = ParityAccumulator()
    with pytest.raises(MsfnetError, match="same frames"):
        accumulator.add(candidate=depth(np.ones((2, 2))), reference=depth(np.ones((2, 3))))
    with pytest.raises(MsfnetError, match="no pixel was compared"):
        accumulator.report()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from msfnet_calibration import ranges
from msfnet_calibration.onnx_files import load_model
from msfnet_calibration.ranges import ActivationRanges, Histogram, collect_ranges, information_lost
from msfnet_export.parity import random_image
from msfnet_runtime import MsfnetError
from msfnet_runtime.preprocess import prepare
from tests.networks import FRAME_SIZE, Exports


def values(rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return three arrays of a heavy-tailed law, each wider than the one before."""
    return [(rng.standard_t(3, (4, 50, 70)) * width).astype(np.float32) for width in (1, 3, 10)]


def test_percentile_and_peak_are_numpys(rng: np.random.Generator) -> None:
    """Over all arrays, whatever the range of the first: within a bin of the last width."""
    histogram = Histogram()
    arrays = values(rng)
    for array in arrays:
        histogram.add(array)

    sizes = np.abs(np.concatenate([array.ravel() for array in arrays]))
    bin_width = histogram.limit / histogram.counts.size
    assert histogram.counts.sum() == sizes.size
    assert histogram.threshold("minmax") == sizes.max()
    assert histogram.threshold("percentile") == pytest.approx(
        np.percentile(sizes, 99.99, method="higher"), abs=2 * bin_width
    )
    assert histogram.threshold("percentile") < sizes.max() / 2


@pytest.mark.parametrize("cut", [128, 150, 511, 1024])
def test_the_information_lost_is_scipys(rng: np.random.Generator, cut: int) -> None:
    """Bins spread over their level one by one, and SciPy's divergence of the two."""
    bins = np.histogram(np.abs(rng.standard_t(3, 40_000)), 1024)[0].astype(np.float64)
    clipped, spread = bins[:cut].copy(), np.zeros(cut)
    clipped[-1] += bins[cut:].sum()
    for level in range(128):
        members = [i for i in range(cut) if i * 128 // cut == level]
        filled = [i for i in members if clipped[i]]
        for i in filled:
            spread[i] = bins[members].sum() / len(filled)
    floor = 1e-6 * bins.sum()
    expected = stats.entropy(np.maximum(clipped, floor), np.maximum(spread, floor))

    assert information_lost(bins, cut) == pytest.approx(expected, rel=1e-3)


def test_entropy_cuts_tails_and_keeps_what_has_none(rng: np.random.Generator) -> None:
    """A uniform distribution is kept whole; the far tail of a heavy-tailed one is cut."""
    whole, heavy = Histogram(), Histogram()
    whole.add(rng.uniform(-1, 1, 50_000).astype(np.float32))
    heavy.add(rng.standard_t(3, 50_000).astype(np.float32))

    assert whole.threshold("entropy") > 0.98 * whole.peak
    assert 4 < heavy.threshold("entropy") < 0.8 * heavy.peak


def test_a_span_ends_at_the_values_there_are(rng: np.random.Generator) -> None:
    """NumPy's extremes with min-max; a percentile cuts the long side only, and 0 lies within."""
    skewed, positive = Histogram(), Histogram()
    array = np.concatenate([rng.uniform(-0.1, 0, 50_000), rng.standard_t(3, 50_000) ** 2])
    skewed.add(array.astype(np.float32))
    positive.add(rng.uniform(3, 5, 1000).astype(np.float32))

    assert skewed.span("minmax") == (array.astype(np.float32).min(), array.astype(np.float32).max())
    low, high = skewed.span("percentile")
    assert low == array.astype(np.float32).min()
    assert high == skewed.threshold("percentile") < array.max() / 2
    assert positive.span("minmax") == (0, positive.peak)


def test_zeros_have_no_range_and_nan_is_refused() -> None:
    """A tensor that a ReLU sets to zero; a model whose activations are not finite."""
    histogram = Histogram()
    histogram.add(np.zeros((3, 4), np.float32))
    assert histogram.threshold("percentile") == 0
    histogram.add(np.array([0.0, 2.0], np.float32))
    assert histogram.threshold("minmax") == 2
    for broken in (np.nan, np.inf):
        with pytest.raises(MsfnetError, match="activation is not finite"):
            histogram.add(np.array([1.0, broken], np.float32))


def test_kept_ranges_are_read_and_a_stopped_run_is_resumed(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames counted before the stop are not run again; the result is that of one run."""
    artifact = exports.plain.artifact
    model = load_model(artifact.path)
    names = [str(node.outputs[0].name) for node in model.graph if node.op_type == "Conv"][:5]
    batches = [prepare(random_image(FRAME_SIZE, seed), artifact.spec) for seed in range(4)]
    whole = collect_ranges(model, names, batches)
    monkeypatch.setattr(ranges, "_KEEP_EVERY", 1)
    ran: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        ran.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_ranges(model, names, batches, folder=tmp_path, progress=stop)
    second = collect_ranges(
        model, names, batches, folder=tmp_path, progress=lambda done, *_: ran.append(done)
    )
    third = collect_ranges(
        model, names, batches, folder=tmp_path, progress=lambda *call: ran.append(call[0])
    )

    assert ran == [1, 2, 3, 3, 4, 4]
    for found in (second, third):
        assert [found.span(name, "percentile") for name in names] == [
            whole.span(name, "percentile") for name in names
        ]
    (file,) = tmp_path.iterdir()
    collect_ranges(model, names, batches[:2], folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    file.write_bytes(b"cut")
    with pytest.raises(MsfnetError, match=rf"{file.name} cannot be read .*; remove it"):
        collect_ranges(model, names, batches, folder=tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A NumPy archive without the fields."""
    np.savez(tmp_path / "other.npz", frames=3)
    with pytest.raises(MsfnetError, match="remove it"):
        ActivationRanges.load(tmp_path / "other.npz")

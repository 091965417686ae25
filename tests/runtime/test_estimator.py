"""Tests that the estimator returns metric depth at the size of each frame."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from msfnet_runtime import DepthEstimator, DepthMap, Frame, MsfnetError, TensorSpec
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.preprocess import prepare
from tests.onnx_models import conv_model, conv_reference
from tests.specs import deploy_spec, network_spec


def test_an_onnx_file_is_sufficient(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """The depth equals that of the same steps in NumPy on the network's grid."""
    spec = network_spec(32, 64)
    onnx.save(conv_model(spec), tmp_path / "model.onnx")
    frame = Frame(photo[:16, :32], index=7, timestamp_s=0.7)

    with DepthEstimator.open(tmp_path / "model.onnx") as estimator:
        depth = estimator(frame)

    expected = np.clip(conv_reference(prepare(frame.image, spec)), 0.5, 80.0)[0, 0]
    np.testing.assert_allclose(depth.values, expected, rtol=1e-5)
    assert (depth.index, depth.timestamp_s) == (7, 0.7)


def test_a_frame_of_another_size_gets_depth_at_its_own_size(photo: NDArray[np.uint8]) -> None:
    """The deploy graph has a fixed frame size; the estimator resizes its output."""
    spec = deploy_spec(48, 80)
    ramp = np.broadcast_to(np.linspace(1, 9, 80, dtype=np.float32), (1, 1, 48, 80))
    estimator = DepthEstimator(FakeEngine(spec, lambda batch: ramp))

    depth = estimator(Frame(photo))

    assert depth.values.shape == photo.shape[:2]
    assert np.all(np.diff(depth.values[0]) >= 0)
    assert depth.values[0, 65] == pytest.approx(5.0, abs=0.1)


def test_a_closed_estimator_refuses_frames(photo: NDArray[np.uint8]) -> None:
    """Use after close is an error; closing twice is allowed."""
    estimator = DepthEstimator(
        FakeEngine(deploy_spec(), lambda batch: np.ones((1, 1, 48, 80), np.float32))
    )
    estimator.close()
    estimator.close()

    with pytest.raises(MsfnetError, match="closed"):
        estimator(Frame(photo))


def frames(count: int, photo: NDArray[np.uint8]) -> list[Frame]:
    """Return pictures of different sizes, each brighter than the one before."""
    return [Frame(photo[: 90 - n, : 60 + n] // 2 + 10 * n, n, n / 10) for n in range(count)]


def red(batch: NDArray[Any]) -> NDArray[np.float32]:
    """Return the red channel of (N, H, W, 3) as depth: (N, 1, H, W)."""
    return batch[:, None, ..., 0].astype(np.float32)


class Counting(FakeEngine):
    """Returns the red channel, slowly, and counts concurrent callers."""

    def __init__(self, *, thread_safe: bool) -> None:
        super().__init__(deploy_spec(48, 80), self._answer)
        self.thread_safe = thread_safe
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def _answer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.02)
        with self._lock:
            self.inside -= 1
        return red(batch)


def same(depth: DepthMap, expected: DepthMap) -> None:
    """Compare two depth maps bit by bit."""
    np.testing.assert_array_equal(depth.values, expected.values)
    np.testing.assert_array_equal(depth.valid, expected.valid)
    assert (depth.index, depth.timestamp_s) == (expected.index, expected.timestamp_s)


@pytest.mark.parametrize(("first", "calls"), [("batch", [5]), (1, [1] * 5)])
def test_a_batch_is_one_call_if_the_graph_allows_it(
    first: str | int, calls: list[int], photo: NDArray[np.uint8]
) -> None:
    """Its results are those of single calls, in order, each at the size of its frame."""
    sizes: list[int] = []

    def infer(batch: NDArray[Any]) -> NDArray[np.float32]:
        sizes.append(len(batch))
        return red(batch)

    spec = deploy_spec(48, 80)
    spec = replace(
        spec,
        inputs=(TensorSpec("frame", "uint8", (first, 48, 80, 3)),),
        outputs=(TensorSpec("depth", "float32", (first, 1, 48, 80), "depth"),),
    )
    estimator = DepthEstimator(FakeEngine(spec, infer))
    pictures = frames(5, photo)

    results = estimator.batch(pictures)

    assert sizes == calls
    for depth, frame in zip(results, pictures, strict=True):
        same(depth, estimator(frame))
        assert depth.values.shape == frame.image.shape[:2]
    assert estimator.batch([]) == []


def in_threads(estimator: DepthEstimator, pictures: list[Frame]) -> list[DepthMap]:
    """Call it from eight threads at once."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(estimator, pictures))


def in_a_loop(estimator: DepthEstimator, pictures: list[Frame]) -> list[DepthMap]:
    """Await all at once in an event loop, which must stay awake meanwhile."""

    async def gather() -> list[DepthMap]:
        beats = asyncio.create_task(_beat())
        results = await asyncio.gather(*map(estimator.acall, pictures))
        beats.cancel()
        assert ticks[0] > 5
        return results

    async def _beat() -> None:
        while True:
            await asyncio.sleep(0.005)
            ticks[0] += 1

    ticks = [0]
    return asyncio.run(gather())


@pytest.mark.parametrize("many", [in_threads, in_a_loop])
@pytest.mark.parametrize("thread_safe", [True, False])
def test_an_engine_is_shared_between_callers(
    thread_safe: bool,
    many: Callable[[DepthEstimator, list[Frame]], list[DepthMap]],
    photo: NDArray[np.uint8],
) -> None:
    """Each caller gets the depth of its frame; calls are serial if the engine requires it."""
    pictures = frames(12, photo)
    with DepthEstimator(Counting(thread_safe=thread_safe)) as estimator:
        results = many(estimator, pictures)
        engine = estimator.engine

        assert isinstance(engine, Counting)
        assert engine.most > 1 if thread_safe else engine.most == 1
        for depth, frame in zip(results, pictures, strict=True):
            same(depth, estimator(frame))
    assert not [t for t in threading.enumerate() if t.name.startswith("msfnet-depth")]


def test_onnx_runtime_serves_many_threads(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """The real engine is thread-safe; two hundred calls from eight threads agree."""
    onnx.save(conv_model(network_spec(32, 64)), tmp_path / "model.onnx")
    pictures = frames(10, photo) * 20
    with DepthEstimator.open(tmp_path / "model.onnx") as estimator:
        alone = [estimator(frame) for frame in pictures[:10]]
        results = in_threads(estimator, pictures)

    assert estimator.engine.thread_safe
    for depth, expected in zip(results, alone * 20, strict=True):
        same(depth, expected)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.timing.core import time_stages
from msfnet_benchmarks.timing.stages import device_call, frame_call, read_timed, stream_stages
from msfnet_runtime import DepthEstimator, Frame
from msfnet_runtime.engine import Timings
from msfnet_runtime.engines.fake import FakeEngine
from tests.onnx_models import conv_reference
from tests.specs import network_spec


class TimedFake(FakeEngine):
    """A fake on a GPU: copies take 0.5 ms and 0.25 ms of 4 ms."""

    def timed(self, batch: NDArray[Any], **settings: object) -> Timings:
        """Return the same for every batch."""
        return Timings(h2d=0.5, compute=3.0, d2h=0.25, enqueue=0.1, total=4.0)


def frames(photo: NDArray[np.uint8]) -> list[Frame]:
    """Return two frames."""
    return [Frame(photo, 0), Frame(photo[::-1].copy(), 1)]


def test_the_stages_of_a_call_are_the_times_between_its_steps(photo: NDArray[np.uint8]) -> None:
    """1, 2 and 3 ms by the clock, and 6 ms from end to end."""
    readings = iter(np.cumsum([5, 0.001, 0.002, 0.003] * 9))
    estimator = DepthEstimator(FakeEngine(network_spec(), conv_reference))
    call = frame_call(estimator, clock=lambda: float(next(readings)))

    stages = time_stages({"fake": call}, frames(photo), rounds=3, warmup=1)["fake"]

    medians = {name: samples.summary().p50_ms for name, samples in stages.items()}
    expected = {"end to end": 6.0, "prepare": 1.0, "infer": 2.0, "finish": 3.0}
    assert medians == pytest.approx(expected)
    assert {samples.ms.shape for samples in stages.values()} == {(3, 2)}


def test_a_timed_call_does_what_the_estimator_does(photo: NDArray[np.uint8]) -> None:
    """The engine gets the same batch, in the same order."""
    batches: list[NDArray[Any]] = []

    def answer(batch: NDArray[Any]) -> NDArray[np.float32]:
        batches.append(batch)
        return conv_reference(batch)

    estimator = DepthEstimator(FakeEngine(network_spec(), answer))
    for frame in frames(photo):
        frame_call(estimator)(frame)
        estimator(frame)

    assert len(batches) == 4
    np.testing.assert_array_equal(batches[0::2], batches[1::2])


def test_copies_are_a_stage_where_the_engine_times_them(photo: NDArray[np.uint8]) -> None:
    """They are not in ``infer`` then; writing comes last and takes time."""
    engine = TimedFake(network_spec(), conv_reference)
    estimator = DepthEstimator(engine)
    timed = time_stages({"fake": frame_call(estimator)}, frames(photo), rounds=1)["fake"]

    stages = stream_stages(timed, estimator, engine, frames(photo))

    assert list(stages) == ["prepare", "copy", "infer", "finish", "write"]
    assert stages["copy"].summary().mean_ms == pytest.approx(0.75)
    assert stages["infer"].summary().mean_ms == pytest.approx(3.25)
    assert stages["write"].ms.shape == (1, 2)
    assert stages["write"].ms.min() > 0


def test_elsewhere_copies_are_part_of_inferring(photo: NDArray[np.uint8]) -> None:
    """The engine knows no stages on a device."""
    estimator = DepthEstimator(FakeEngine(network_spec(), conv_reference))
    timed = time_stages({"fake": frame_call(estimator)}, frames(photo), rounds=1)["fake"]

    stages = stream_stages(timed, estimator, None, frames(photo))

    assert list(stages) == ["prepare", "infer", "finish", "write"]
    assert stages["infer"] is timed["infer"]


def test_latency_on_the_device_is_the_sum_of_its_stages() -> None:
    """Without transfers there are no copies, and latency is the GPU's compute time."""
    engine = TimedFake(network_spec(), conv_reference)
    batch = np.zeros((1, 3, 32, 64), np.float32)

    assert device_call(engine)(batch) == {
        "H2D": 0.5, "GPU compute": 3.0, "D2H": 0.25, "latency": 3.75, "enqueue": 0.1,
        "end to end": 4.0,
    }  # fmt: skip
    assert device_call(engine, transfers=False)(batch) == {
        "GPU compute": 3.0, "latency": 3.0, "enqueue": 0.1, "end to end": 4.0
    }  # fmt: skip


def test_reading_is_timed_item_by_item() -> None:
    """No more items than asked for; a source that ends before gives fewer times."""
    found, decode = read_timed(iter("abcde"), 3)
    assert (found, decode.ms.shape) == (["a", "b", "c"], (1, 3))

    found, decode = read_timed(iter("ab"), 3)
    assert (found, decode.ms.shape) == (["a", "b"], (1, 2))

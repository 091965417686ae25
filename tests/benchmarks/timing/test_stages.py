from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.timing.stages import StagedRunner, all_stages
from msfnet_runtime import DepthEstimator, Frame
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.timings import Timings
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
    """1, 2 and 3 ms by the clock; the calls before the last are warm-up."""
    moments = iter([0.0, 1.0, 2.0, 3.0, *np.cumsum([5, 0.001, 0.002, 0.003] * 6)])
    estimator = DepthEstimator(FakeEngine(network_spec(), conv_reference))
    runner = StagedRunner(estimator, clock=lambda: float(next(moments)))

    answers = [runner(frame) for frame in (frames(photo)[0], *3 * frames(photo))]

    stages = runner.stages(6)
    assert {name: stage.p50 for name, stage in stages.items()} == pytest.approx(
        {"prepare": 1.0, "infer": 2.0, "finish": 3.0}
    )
    engine = runner.engine_latency("fake", 3, 2)
    assert engine.calls == 6
    assert engine.p99_ms == pytest.approx(2.0)
    np.testing.assert_array_equal(answers[0].values, estimator(frames(photo)[0]).values)


def test_copies_are_told_apart_where_the_engine_times_them(photo: NDArray[np.uint8]) -> None:
    """They are not in ``infer`` then; writing comes last and takes time."""
    estimator = DepthEstimator(TimedFake(network_spec(), conv_reference))
    runner = StagedRunner(estimator)
    for frame in frames(photo):
        runner(frame)

    stages = all_stages(runner, estimator, frames(photo), 2)

    assert list(stages) == ["prepare", "copy", "infer", "finish", "write"]
    assert stages["copy"].mean == pytest.approx(0.75)
    assert stages["infer"].mean == pytest.approx(3.25)
    assert stages["write"].p50 > 0

"""The ROS 2 example answers images as the estimator does; ROS itself is a stand-in here."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from msfnet_runtime import DepthEstimator, Frame
from tests.networks import Exports
from tests.runtime.streams import frame

NODE = Path(__file__).parents[2] / "examples/ros2/depth_node.py"


class Node:
    """What the example uses of rclpy's Node."""

    parameters: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str) -> None:
        self.published: dict[str, list[Any]] = {}
        self.heard: dict[str, Any] = {}
        self.warnings: list[str] = []

    def declare_parameter(self, name: str, default: str) -> SimpleNamespace:
        """Return the parameter's value."""
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind: type, topic: str, qos: object) -> SimpleNamespace:
        """Keep what is published."""
        return SimpleNamespace(publish=self.published.setdefault(topic, []).append)

    def create_subscription(self, kind: type, topic: str, answer: Any, qos: object) -> None:
        """Keep who listens."""
        self.heard[topic] = answer

    def get_logger(self) -> SimpleNamespace:
        """Keep warnings."""
        return SimpleNamespace(
            info=lambda text: None, warning=lambda text, **_: self.warnings.append(text)
        )


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the example's names, with ROS's modules replaced."""
    policies = SimpleNamespace(KEEP_LAST=1, BEST_EFFORT=2)
    modules: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {
            "HistoryPolicy": policies,
            "ReliabilityPolicy": policies,
            "QoSProfile": SimpleNamespace,
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": SimpleNamespace, "CameraInfo": SimpleNamespace},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(NODE))


def test_an_image_message_is_answered_with_metres(
    example: dict[str, Any], exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BGR with padded rows; header, encoding, unit, NaN where invalid, and the camera."""
    model = exports.deploy.artifact.path
    monkeypatch.setattr(Node, "parameters", {"model": str(model)})
    picture = frame(3, (40, 50)).image
    padded = np.zeros((40, 160), np.uint8)
    padded[:, :150] = picture[..., ::-1].reshape(40, 150)
    message = SimpleNamespace(
        header="stamp", encoding="bgr8", height=40, width=50, step=160, data=padded.tobytes()
    )

    node = example["DepthNode"]()
    node.heard["camera_info"](SimpleNamespace(header="old", k=[1.0]))
    node.heard["image"](message)
    node.heard["image"](SimpleNamespace(encoding="mono8"))

    (answer,) = node.published["depth"]
    with DepthEstimator.open(model) as estimator:
        expected = estimator(Frame(picture))
    got = np.frombuffer(answer.data, "<f4").reshape(answer.height, answer.width)
    assert (answer.header, answer.encoding, answer.step) == ("stamp", "32FC1", 200)
    np.testing.assert_array_equal(np.isfinite(got), expected.valid)
    np.testing.assert_allclose(got[expected.valid], expected.values[expected.valid], rtol=1e-6)
    assert node.published["depth/camera_info"][0].header == "stamp"
    assert "mono8" in node.warnings[0]

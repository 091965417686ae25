#!/usr/bin/env python3
"""A ROS 2 node: images in, metric depth out (REP 118: 32FC1, metres, invalid is NaN).

    python3 depth_node.py --ros-args -p model:=/models/model.onnx -r image:=/camera/image_raw

Subscribes to ``image`` (sensor_msgs/Image, rgb8 or bgr8) and ``camera_info``; publishes ``depth``
and ``depth/camera_info`` with the stamp and frame of the image. Only the newest image is processed:
the subscriptions keep one message, and the executor takes the next one after depth was published.
"""

from __future__ import annotations

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from msfnet_runtime import DepthEstimator, DepthMap, Frame

NEWEST = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)


class DepthNode(Node):  # type: ignore[misc]
    """Publishes the depth of the newest image, again and again."""

    def __init__(self) -> None:
        super().__init__("msfnet_depth")
        model = self.declare_parameter("model", "").value
        provider = self.declare_parameter("provider", "cpu").value
        self.estimator = DepthEstimator.open(model, provider=provider)
        self.camera: CameraInfo | None = None
        self.depth = self.create_publisher(Image, "depth", NEWEST)
        self.depth_camera = self.create_publisher(CameraInfo, "depth/camera_info", NEWEST)
        self.create_subscription(CameraInfo, "camera_info", self.keep_camera, NEWEST)
        self.create_subscription(Image, "image", self.answer, NEWEST)
        self.get_logger().info(f"running {model} with {self.estimator.engine.describe()}")

    def keep_camera(self, camera: CameraInfo) -> None:
        """Store the camera, which is published together with the depth."""
        self.camera = camera

    def answer(self, message: Image) -> None:
        """Publish the depth of one image."""
        if message.encoding not in ("rgb8", "bgr8"):
            self.get_logger().warning(
                f"image encoding {message.encoding} is not supported; publish rgb8 or bgr8",
                throttle_duration_sec=5.0,
            )
            return
        self.depth.publish(to_message(self.estimator(Frame(to_rgb(message))), message))
        if self.camera is not None:
            self.camera.header = message.header
            self.depth_camera.publish(self.camera)


def to_rgb(message: Image) -> NDArray[np.uint8]:
    """Return a message's image as (H, W, 3) uint8 RGB; rows may be padded to ``step`` bytes."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
    return np.ascontiguousarray(pixels if message.encoding == "rgb8" else pixels[..., ::-1])


def to_message(depth: DepthMap, image: Image) -> Image:
    """Return depth as a 32FC1 message with the header of the image; invalid pixels are NaN."""
    values = np.where(depth.valid, depth.values, np.nan).astype("<f4")
    message = Image()
    message.header = image.header
    message.height, message.width = values.shape
    message.encoding, message.is_bigendian, message.step = "32FC1", 0, 4 * values.shape[1]
    message.data = values.tobytes()
    return message


def main() -> None:
    """Run the node until it is stopped."""
    rclpy.init()
    node = DepthNode()
    try:
        rclpy.spin(node)
    finally:
        node.estimator.close()
        node.destroy_node()


if __name__ == "__main__":
    main()

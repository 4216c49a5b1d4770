# SPDX-License-Identifier: Apache-2.0
"""segmentation_node: images in, label images out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from perception.labels import LabelSet
from perception.ros.camera_input import CameraInput, CameraMessages, decode_color, topic_of
from perception.ros.conversions import array_to_image, confidence_to_image, label_set_to_label_info, labels_to_image
from perception.ros.drops import dropping
from perception.ros.node import PerceptionNode, latched_qos, run_node
from perception.types import LabelImage

OVERLAY_OPACITY = 0.5
OUTPUT_DEPTH = 5


class LabelOutputs:
    """The topics of label images, published with the image's stamp.

    Args:
        node: a node that is being configured.
        threshold: labels of a lower probability are published as none; told in label_info.
        camera: whose images they are, where there are several cameras.
    """

    def __init__(self, node: PerceptionNode, threshold: float, camera: str = "") -> None:
        from vision_msgs.msg import LabelInfo

        self._threshold = threshold
        self._labels: Publisher = node.advertise(Image, topic_of(camera, "labels"), OUTPUT_DEPTH)
        self._confidence: Publisher = node.advertise(Image, topic_of(camera, "label_confidence"), OUTPUT_DEPTH)
        self._overlay: Publisher = node.advertise(Image, topic_of(camera, "overlay"), OUTPUT_DEPTH)
        self._info: Publisher = node.advertise(LabelInfo, topic_of(camera, "label_info"), latched_qos())

    def announce(self, label_set: LabelSet, stamp_ns: int) -> None:
        """Publish what the ids mean."""
        self._info.publish(label_set_to_label_info(label_set, "", stamp_ns, self._threshold))

    def publish(self, labels: LabelImage, color: Any, frame_id: str, stamp_ns: int) -> None:
        """Publish what has subscribers."""
        if self._labels.get_subscription_count():
            self._labels.publish(labels_to_image(labels.labels, labels.label_set.num_classes, frame_id, stamp_ns))
        if self._confidence.get_subscription_count():
            self._confidence.publish(confidence_to_image(labels.confidence, frame_id, stamp_ns))
        if self._overlay.get_subscription_count():
            picture = overlay(color, labels)
            self._overlay.publish(array_to_image(picture, "rgb8", frame_id, stamp_ns))


def overlay(color: Any, labels: LabelImage) -> Any:
    """(H, W, 3) uint8: the image, tinted in the colors of the classes where there is a label."""
    import cv2
    import numpy as np

    mixed = cv2.addWeighted(color, 1 - OVERLAY_OPACITY, labels.label_set.colorize(labels.labels), OVERLAY_OPACITY, 0)
    return np.where((labels.labels >= 0)[..., None], mixed, color)


class SegmentationNode(PerceptionNode):
    """Labels every pixel of ``image``; publishes labels, label_confidence, label_info and overlay."""

    parameter_groups = ("segmentation", "input")

    def __init__(self, **node_arguments: Any) -> None:
        self._segmenter: Any = None
        self._input: CameraInput | None = None
        super().__init__("segmentation_node", **node_arguments)

    def load(self) -> None:
        """Load the network and run it once."""
        from perception.errors import InputError
        from perception.models import segmenter_from_config

        self._segmenter = segmenter_from_config(self.parameters.config("segmentation"))
        if self._segmenter is None:
            raise InputError("parameter segmentation.model: segmentation_node needs a network, got 'none'")
        self._segmenter.warm_up()

    def setup(self) -> None:
        """Advertise the label images."""
        self._outputs = LabelOutputs(self, self.parameters.config("segmentation").min_confidence)
        self._outputs.announce(self._segmenter.label_set, self.now_ns())

    def start(self) -> None:
        """Listen to images."""
        worker = self.worker
        assert worker is not None
        self._input = CameraInput(self, self.parameters.config("input"), 0, ("image",), worker.submit)

    def forget(self) -> None:
        """Forget waiting images."""
        if self._input is not None:
            self._input.clear()

    def process(self, frame: CameraMessages, needs: Any) -> None:
        """Label one image."""
        color = decode_color(frame.image)
        with dropping("invalid"):
            labels = self._segmenter(color)
        self._outputs.publish(labels, color, frame.frame_id, frame.stamp_ns)
        self.done(frame.stamp_ns)

    def teardown(self) -> None:
        """Free the network."""
        self._segmenter = None

    def details(self) -> Mapping[str, Any]:
        """What labels the images."""
        segmenter = self._segmenter
        return {} if segmenter is None else {"network": segmenter.name, "device": segmenter.device}


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(SegmentationNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())

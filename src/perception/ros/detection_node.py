# SPDX-License-Identifier: Apache-2.0
"""detection_node: images in, objects out, with depth also as boxes in the map frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from perception.detections3d import lift_detections
from perception.geometry import Transform
from perception.instance_labels import label_image_from_masks
from perception.pipeline import registered
from perception.ros.camera_input import (
    CameraInput,
    CameraMessages,
    camera_poses,
    decode_color,
    decode_frame,
)
from perception.ros.conversions import (
    array_to_image,
    confidence_to_image,
    detections_to_detection2d_array,
    label_set_to_label_info,
    labels_to_image,
)
from perception.ros.detection_conversions import (
    detections_to_detection3d_array,
    detections_to_markers,
    draw_detections,
)
from perception.ros.drops import dropping
from perception.ros.node import PerceptionNode, latched_qos, run_node
from perception.types import Detections, Frame

OUTPUT_DEPTH = 5


class DetectionNode(PerceptionNode):
    """Finds objects in ``image``; publishes detections, detections_overlay and, latched, detections_label_info.

    A network with masks also gives detections_labels and detections_label_confidence: label images as
    segmentation_node's, that pipeline_node (``label_source: topic``) and labeled_cloud_node take in their place.
    With ``use_3d`` it also takes depth, camera_info and transforms, and publishes detections_3d and detections_markers;
    images of a distorted lens are rectified first, and the boxes in ``detections`` are then those in the rectified
    image.
    """

    parameter_groups = ("detection", "detection_output", "boxes", "input")
    single_parameters = ("octomap.frame_id", "cloud.sync_tolerance", "cloud.transform_timeout")

    def __init__(self, **node_arguments: Any) -> None:
        self._detector: Any = None
        self._tracker: Any = None
        self._camera: CameraInput | None = None
        super().__init__("detection_node", **node_arguments)

    def load(self) -> None:
        """Load the network and run it once."""
        from perception.models import detector_from_config
        from perception.tracking import ObjectTracker

        self._output = self.parameters.config("detection_output")
        self._boxes = self.parameters.config("boxes")
        self._tracker = ObjectTracker(self._boxes) if self._output.use_3d and self._output.use_tracking else None
        self._detector = detector_from_config(self.parameters.config("detection"))
        self._detector.warm_up()

    def setup(self) -> None:
        """Advertise the objects and say what classes there are."""
        from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

        self._detections: Publisher = self.advertise(Detection2DArray, "detections", OUTPUT_DEPTH)
        self._overlay: Publisher = self.advertise(Image, "detections_overlay", OUTPUT_DEPTH)
        self._labels: Publisher = self.advertise(Image, "detections_labels", OUTPUT_DEPTH)
        self._confidence: Publisher = self.advertise(Image, "detections_label_confidence", OUTPUT_DEPTH)
        if self._output.use_3d:
            self._detections_3d: Publisher = self.advertise(Detection3DArray, "detections_3d", OUTPUT_DEPTH)
            self._markers: Publisher = self.advertise(MarkerArray, "detections_markers", OUTPUT_DEPTH)
        info: Publisher = self.advertise(LabelInfo, "detections_label_info", latched_qos())
        threshold = self.parameters.config("detection").score_threshold
        info.publish(label_set_to_label_info(self._detector.label_set, "", self.now_ns(), threshold))

    def start(self) -> None:
        """Listen to the camera."""
        worker = self.worker
        assert worker is not None
        self._input = self.parameters.config("input")
        self._map_frame: str = self.parameters.config("octomap").frame_id
        streams = ("depth", "image") if self._output.use_3d else ("image",)
        tolerance_ns = round(self.parameters.config("cloud").sync_tolerance * 1e9)
        self._camera = CameraInput(self, self._input, tolerance_ns, streams, worker.submit)

    def forget(self) -> None:
        """Forget waiting images; the tracker begins anew by itself when stamps go back."""
        if self._camera is not None:
            self._camera.clear()

    def resolve(self, frame: CameraMessages) -> tuple[Transform, Transform | None] | None:
        """Where the camera was, for boxes in the map."""
        if not self._output.use_3d:
            return None
        return camera_poses(frame, self.transforms, self._map_frame, self._input.depth_registered)

    def process(self, frame: CameraMessages, needs: tuple[Transform, Transform | None] | None) -> None:
        """Find the objects of one image."""
        if needs is None:
            color = decode_color(frame.image)
            self._publish(self._detect(color), color, frame.frame_id, frame.stamp_ns)
        else:
            decoded = decode_frame(frame, *needs, self._input, None)
            with dropping("invalid"):
                ready = registered(decoded)
            detections = self._detect(ready.color)
            self._publish(detections, ready.color, frame.frame_id, frame.stamp_ns)
            self._publish_boxes(detections, ready)
        self.done(frame.stamp_ns)

    def _detect(self, color: Any) -> Detections:
        with dropping("invalid"):
            return self._detector(color)

    def _publish(self, detections: Detections, color: Any, frame_id: str, stamp_ns: int) -> None:
        if self._detections.get_subscription_count():
            self._detections.publish(detections_to_detection2d_array(detections, frame_id, stamp_ns))
        self._publish_masks(detections, frame_id, stamp_ns)
        if self._overlay.get_subscription_count():
            self._overlay.publish(array_to_image(draw_detections(color, detections), "rgb8", frame_id, stamp_ns))

    def _publish_masks(self, detections: Detections, frame_id: str, stamp_ns: int) -> None:
        wanted = [publisher.get_subscription_count() > 0 for publisher in (self._labels, self._confidence)]
        if detections.masks is None or not any(wanted):
            return
        painted = label_image_from_masks(detections)
        if wanted[0]:
            count = detections.label_set.num_classes
            self._labels.publish(labels_to_image(painted.labels, count, frame_id, stamp_ns))
        if wanted[1]:
            self._confidence.publish(confidence_to_image(painted.confidence, frame_id, stamp_ns))

    def _publish_boxes(self, detections: Detections, frame: Frame) -> None:
        with dropping("invalid"):
            boxes = lift_detections(
                detections,
                frame.depth,
                frame.camera,
                frame.map_T_camera,
                self._boxes,
                stamp_ns=frame.stamp_ns,
                frame_id=self._map_frame,
            )
        if self._tracker is not None:
            boxes = self._tracker.update(boxes)
        if self._detections_3d.get_subscription_count():
            self._detections_3d.publish(detections_to_detection3d_array(boxes))
        if self._markers.get_subscription_count():
            self._markers.publish(detections_to_markers(boxes))

    def teardown(self) -> None:
        """Free the network."""
        self._detector = self._tracker = None

    def details(self) -> Mapping[str, Any]:
        """What finds the objects."""
        detector = self._detector
        return {} if detector is None else {"network": detector.name, "device": detector.device}


def main(arguments: list[str] | None = None) -> int:
    """Run the node."""
    return run_node(DetectionNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())

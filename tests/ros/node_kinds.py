# SPDX-License-Identifier: Apache-2.0
"""The nodes that take frames or clouds, with the parameters that let them run on toys."""

from perception.ros.detection_node import DetectionNode
from perception.ros.labeled_cloud_node import LabeledCloudNode
from perception.ros.octomap_node import OctomapNode
from perception.ros.pipeline_node import PipelineNode
from perception.ros.segmentation_node import SegmentationNode

NODES = {
    "segmentation_node": (SegmentationNode, {"segmentation__model": "toy_network:build"}),
    "labeled_cloud_node": (LabeledCloudNode, {}),
    "octomap_node": (OctomapNode, {}),
    "pipeline_node": (PipelineNode, {"segmentation__model": "toy_network:build"}),
    "detection_node": (DetectionNode, {"detection__model": "toy_detector:build"}),
}

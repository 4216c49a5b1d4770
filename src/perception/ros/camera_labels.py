# SPDX-License-Identifier: Apache-2.0
"""Labels for clouds of other sensors, from what the cameras of the same node saw last. Without ROS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.cloud_codec import PointFields
from perception.cloud_labels import LabeledView, labels_in_view
from perception.geometry import Transform
from perception.types import Frame, LabelImage


class CameraLabels:
    """Keeps the newest labeled image of each camera and gives clouds their labels.

    Attributes:
        labeled: points that have got a label so far.
    """

    def __init__(self) -> None:
        self._views: dict[str, LabeledView] = {}
        self.labeled = 0

    def keep(self, camera: str, frame: Frame, labels: LabelImage) -> None:
        """Keep what a camera saw; the frame is rectified, its depth registered to the labels."""
        self._views[camera] = LabeledView(frame.stamp_ns, labels, frame.depth, frame.camera, frame.map_T_camera)

    def forget(self) -> None:
        """Forget everything: time went back."""
        self._views.clear()

    def label(
        self,
        cloud: PointFields,
        free: NDArray[np.float32],
        map_T_sensor: Transform,
        stamp_ns: int,
        max_age_s: float,
        min_confidence: float,
    ) -> tuple[PointFields, NDArray[np.float32]]:
        """A cloud with labels where a camera sees it; those of several cameras, by the surest.

        Args:
            cloud: points in the sensor's frame. Labels of its own stay.
            free: (M, 3) ends of rays that met nothing.
            map_T_sensor: where the sensor was.
            stamp_ns: of the cloud, nanoseconds.
            max_age_s: largest difference of stamps, seconds.
            min_confidence: labels below it count as none.

        Returns:
            The cloud without the points of classes that move, and the ends of free rays with these points: as with
            cameras, such things are not mapped, yet what is before them is free.
        """
        fresh = [view for view in self._views.values() if abs(stamp_ns - view.stamp_ns) <= max_age_s * 1e9]
        if not fresh or cloud.labels is not None:
            return cloud, free
        points = map_T_sensor.apply(cloud.points)
        ids, sure = labels_in_view(points, fresh[0], min_confidence)
        for view in fresh[1:]:
            others, surer = labels_in_view(points, view, min_confidence)
            better = surer > sure
            ids[better], sure[better] = others[better], surer[better]
        self.labeled += int((ids >= 0).sum())
        moves = np.concatenate([fresh[0].labels.label_set.moves, [False]])[ids]
        # −1 means none to the map and is never a class that moves: the last place of the table.
        labeled = replace(cloud, labels=ids, confidence=sure)
        if not moves.any():
            return labeled, free
        still = ~moves
        colors = None if cloud.colors is None else cloud.colors[still]
        rest = PointFields(cloud.points[still], colors, ids[still], sure[still])
        return rest, np.concatenate([free, cloud.points[moves]])

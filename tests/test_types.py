# SPDX-License-Identifier: Apache-2.0
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from perception.errors import InputError
from perception.geometry import PinholeCamera, Transform
from perception.labels import LabelClass, LabelSet
from perception.types import CostGrid, DeferredColor, Detections, Frame, LabelImage

CAMERA = PinholeCamera(4, 3, 2.0, 2.0, 1.5, 1.0)
CLASSES = LabelSet("x", (LabelClass(0, "a", (1, 2, 3)), LabelClass(1, "b", (4, 5, 6))))


def frame(**changes):
    values = {
        "stamp_ns": 0,
        "color": np.zeros((3, 4, 3), np.uint8),
        "depth": np.ones((3, 4), np.float32),
        "camera": CAMERA,
        "map_T_camera": Transform.identity(),
    }
    return Frame(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color": np.zeros((3, 5, 3), np.uint8)}, "color: expected 4x3 as its intrinsics say, got 5x3"),
        ({"color": np.zeros((3, 4), np.uint8)}, "color: expected"),
        ({"color": np.zeros((3, 4, 3), np.float32)}, "float32"),
        ({"depth": np.zeros((6, 8), np.float32)}, "depth: expected 4x3 as its intrinsics say, got 8x6"),
        ({"depth": np.zeros((3, 4), np.uint16)}, "uint16"),
        ({"depth_camera": CAMERA}, "belong together"),
        ({"labels": LabelImage.certain(np.zeros((3, 3), int), CLASSES)}, "labels: expected"),
    ],
)
def test_frame_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        frame(**changes)


def test_depth_of_another_camera_has_that_cameras_size():
    other = PinholeCamera(8, 6, 4.0, 4.0, 3.5, 2.5)
    assert frame(depth=np.ones((6, 8), np.float32), depth_camera=other, camera_T_depth=Transform.identity())


def test_label_image_refuses_ids_outside_of_its_set():
    with pytest.raises(InputError, match=r"got \[7\]"):
        LabelImage.certain(np.array([[0, 7]]), CLASSES)


def test_label_image_refuses_confidence_of_another_shape():
    with pytest.raises(InputError, match="confidence"):
        LabelImage(np.zeros((2, 2), int), np.zeros((2, 3), np.float32), CLASSES)


def test_detections_refuse_counts_that_differ():
    with pytest.raises(InputError, match=r"boxes \(2, 4\)"):
        Detections(np.zeros((3, 4), np.float32), np.zeros(2, np.float32), np.zeros(2, int), CLASSES)


def test_cost_grid_refuses_other_types_and_resolutions():
    with pytest.raises(InputError, match="int8"):
        CostGrid(np.zeros((2, 2)), 0.05, (0, 0))
    with pytest.raises(InputError, match="resolution"):
        CostGrid(np.zeros((2, 2), np.int8), 0.0, (0, 0))


class _Decoder:
    """Counts how often it was asked for its image."""

    def __init__(self, image):
        self.image, self.count = image, 0

    def __call__(self):
        self.count += 1
        return self.image


def test_deferred_color_is_decoded_once_and_only_when_it_is_looked_at():
    decoder = _Decoder(np.full((3, 4, 3), 7, np.uint8))
    one = frame(color=DeferredColor(3, 4, decoder))
    other = one.changed(stamp_ns=5)
    brighter = frame(color=one.color_through(lambda color: color + np.uint8(1)))
    assert decoder.count == 0
    assert (brighter.color == 8).all() and (other.color == 7).all() and (one.color == 7).all()
    assert other.stamp_ns == 5 and decoder.count == 1


def test_deferred_color_of_another_size_than_the_camera_is_refused_before_it_is_decoded():
    decoder = _Decoder(np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(InputError, match="expected 4x3 as its intrinsics say, got 5x3"):
        frame(color=DeferredColor(3, 5, decoder))
    assert decoder.count == 0


def test_deferred_color_that_is_not_as_announced_is_refused_when_looked_at():
    one = frame(color=DeferredColor(3, 4, _Decoder(np.zeros((3, 5, 3), np.uint8))))
    with pytest.raises(InputError, match="announced"):
        _ = one.color


def test_deferred_color_lets_go_of_what_it_was_decoded_from():
    decoder = _Decoder(np.full((3, 4, 3), 7, np.uint8))
    held = weakref.ref(decoder)
    one = frame(color=DeferredColor(3, 4, decoder))
    brighter = frame(color=one.color_through(lambda color: color + np.uint8(1)))
    del decoder
    assert held() is not None and (brighter.color == 8).all()
    assert held() is None
    assert one.color is one.color and (one.color == 7).all()


def test_deferred_color_that_failed_fails_again():
    def broken():
        raise InputError("the file is damaged")

    one = frame(color=DeferredColor(3, 4, broken))
    for _ in range(2):
        with pytest.raises(InputError, match="damaged"):
            _ = one.color


def test_deferred_color_is_decoded_once_for_several_threads():
    started = threading.Barrier(2)

    class Slow(_Decoder):
        def __call__(self):
            time.sleep(0.02)
            return super().__call__()

    decoder = Slow(np.full((3, 4, 3), 7, np.uint8))
    one = frame(color=DeferredColor(3, 4, decoder))

    def look(_):
        started.wait()
        return one.color

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(look, range(2))
    assert first is second and decoder.count == 1


def test_a_frame_of_an_array_is_changed_like_any_other():
    one = frame()
    assert one.changed(stamp_ns=9).color is one.color
    assert (one.color_through(lambda color: color + np.uint8(2)) == 2).all()
    with pytest.raises(AttributeError):
        one.color = one.color

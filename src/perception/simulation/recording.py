# SPDX-License-Identifier: Apache-2.0
"""Write drives to folders (7-Scenes style) and to bags, with everything that is known to be true beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import InputError
from perception.geometry import Transform
from perception.labels import UNLABELED_8
from perception.simulation.drive import Drive, SimulatedFrame, stamp_ns
from perception.simulation.poses import BODY_T_OPTICAL
from perception.sources.bag_writer import BagLayout, BagWriter, to_millimeters

TF_RATE = 50.0
"""Transforms per second in bags, so that poses of frames must be interpolated."""
ODOMETRY = "nav_msgs/msg/Odometry"
NO_INSTANCE = 65535
Progress = Callable[[int], None]
"""Called with the number of frames written so far."""


def write_folder(drive: Drive, folder: str | Path, progress: Progress | None = None) -> int:
    """Write frames as 7-Scenes has them, and the truth.

    ``frame-NNNNNN`` each with .color.png, .depth.png (16 bit, millimeters, 0 for none), .pose.txt (4×4 camera to
    map), .segm.png (class ids, 255 for none) and .instance.png (16 bit, 65535 for none); camera-intrinsics.txt,
    labels.yaml, dataset.yaml (which replay reads) and what :func:`write_truth` adds.

    Returns:
        How many frames were written.

    Raises:
        InputError: the folder holds something already, or cannot be written; more classes than a byte holds.
    """
    folder = new_folder(folder)
    if drive.label_set.num_classes > UNLABELED_8:
        raise InputError(f"labels: expected ids below {UNLABELED_8} for .segm.png, got {drive.label_set.num_classes}")
    np.savetxt(folder / "camera-intrinsics.txt", drive.camera.matrix, "%.9g")
    (folder / "labels.yaml").write_text(_yaml(drive.label_set.to_dict()), encoding="utf-8")
    (folder / "dataset.yaml").write_text(_yaml(_description(drive)), encoding="utf-8")
    count = 0
    for count, simulated in enumerate(drive.frames(), 1):
        _write_frame(folder / f"frame-{count - 1:06d}", simulated)
        if progress:
            progress(count)
    write_truth(drive, folder)
    return count


def write_bag(drive: Drive, path: str | Path, layout: BagLayout | None = None, progress: Progress | None = None) -> int:
    """Write a bag as a robot records it, with true labels.

    Topics are those of :class:`BagWriter`, and /odom; /tf has map → odom → base_link at 50 Hz, /tf_static base_link →
    camera_link → camera_optical_frame. The truth is written beside the bag's storage file.

    Returns:
        How many frames were written.

    Raises:
        InputError: the folder exists or cannot be made.
    """
    layout = layout or BagLayout(compressed=True)
    count = 0
    with BagWriter(path, layout) as writer:
        base, optical = layout.base_frame, "camera_optical_frame"
        fixed = [(base, "camera_link", drive.base_T_camera_link), ("camera_link", optical, BODY_T_OPTICAL)]
        writer.write_transforms(stamp_ns(0.0), fixed, static=True)
        frames = drive.frames()
        times = drive.times()
        # One stream in the order of stamps; transforms reach a little past the last frame.
        end = float(times[-1]) + 2.0 / TF_RATE
        ticks = np.arange(0.0, min(end, drive.trajectory.duration), 1.0 / TF_RATE)
        pending = [(float(t), True) for t in ticks] + [(float(t), False) for t in times]
        for seconds, is_tick in sorted(pending):
            if is_tick:
                _write_odometry(writer, drive, seconds)
                continue
            writer.write_frame(next(frames).frame, pose=False)
            count += 1
            if progress:
                progress(count)
    write_truth(drive, Path(path))
    return count


def write_truth(drive: Drive, folder: Path) -> None:
    """Write what a simulation knows: the true voxels, the true and the odometry's path, names, sources.

    ``ground_truth_voxels.npz`` (:class:`VoxelMap`), ``groundtruth.txt`` and ``odometry.txt`` (stamp tx ty tz qx qy qz
    qw of base_link in map and in odom, at the frames' stamps), ``instances.json`` (name and class of each instance
    id), ``ATTRIBUTION.txt`` where models of others were used.
    """
    drive.voxels.save(folder / "ground_truth_voxels.npz")
    times = drive.times().tolist()
    _write_path(folder / "groundtruth.txt", "map", times, drive.trajectory.at)
    _write_path(folder / "odometry.txt", "odom", times, drive.odometry.at)
    names = [{"name": i.name, "class": drive.label_set.name_of(i.label)} for i in drive.scene.instances]
    (folder / "instances.json").write_text(json.dumps(names, indent=1), encoding="utf-8")
    if drive.scene.attribution:
        text = "Models of others that can be seen:\n" + "\n".join(drive.scene.attribution) + "\n"
        (folder / "ATTRIBUTION.txt").write_text(text, encoding="utf-8")


def new_folder(folder: str | Path, least_free: int = 50_000_000) -> Path:
    """Make a folder to write to.

    Raises:
        InputError: it holds something already, cannot be made, or the disk has less than ``least_free`` bytes left.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: expected a new or empty folder, got one with something in it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error})") from error
    if free < least_free:
        raise InputError(f"{folder}: expected at least {least_free >> 20} MiB of free disk, got {free >> 20} MiB")
    return folder


def _write_frame(stem: Path, simulated: SimulatedFrame) -> None:
    frame = simulated.frame
    assert frame.labels is not None
    labels = np.where(frame.labels.labels < 0, UNLABELED_8, frame.labels.labels).astype(np.uint8)
    instances = np.where(simulated.instances < 0, NO_INSTANCE, simulated.instances).astype(np.uint16)
    depth = to_millimeters(frame.depth)
    _write_png(Path(f"{stem}.color.png"), frame.color[..., ::-1])
    _write_png(Path(f"{stem}.depth.png"), depth)
    _write_png(Path(f"{stem}.segm.png"), labels)
    _write_png(Path(f"{stem}.instance.png"), instances)
    np.savetxt(f"{stem}.pose.txt", frame.map_T_camera.matrix, "%.9g")


def _write_png(path: Path, image: NDArray[Any]) -> None:
    import cv2

    # imwrite says nothing when the disk is full; bytes written by Python raise.
    done, data = cv2.imencode(".png", np.ascontiguousarray(image))
    if not done:
        raise InputError(f"{path}: the image cannot be written as PNG")
    path.write_bytes(data.tobytes())


def _description(drive: Drive) -> dict[str, Any]:
    return {
        "layout": "7scenes",
        "depth": {"scale": 1000.0},
        "labels": {"files": "segm", "label_set": "labels.yaml", "unlabeled": [UNLABELED_8]},
        "frame_rate": float(drive.options.rate),
    }


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120)


def _write_path(path: Path, frame: str, times: list[float], pose_at: Callable[[float], Transform]) -> None:
    # Whoever gives this file as the camera's path (--poses) is told by it that it is not.
    lines = [f"# base_link (not the camera) in {frame}: stamp tx ty tz qx qy qz qw\n"]
    for seconds in times:
        pose = pose_at(seconds)
        stamp = stamp_ns(seconds)
        numbers = " ".join(f"{value:.9g}" for value in (*pose.translation, *pose.quaternion_xyzw))
        lines.append(f"{stamp // 10**9}.{stamp % 10**9:09d} {numbers}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _write_odometry(writer: BagWriter, drive: Drive, seconds: float) -> None:
    """Write map → odom and odom → base_link to /tf, and the same odometry with its speed to /odom."""
    layout, stamp = writer.layout, stamp_ns(seconds)
    odom_T_base = drive.odometry.at(seconds)
    chain = [(layout.fixed_frame, "odom", drive.map_T_odom(seconds)), ("odom", layout.base_frame, odom_T_base)]
    writer.write_transforms(stamp, chain)
    message = _odometry(writer, stamp, odom_T_base, drive.odometry_velocity(seconds))
    writer.write("/odom", ODOMETRY, stamp, message)


def _odometry(writer: BagWriter, stamp: int, odom_T_base: Transform, velocity: tuple[float, float, float]) -> Any:
    make = writer.make
    forward, left, turn_rate = velocity
    (x, y, z), (qx, qy, qz, qw) = odom_T_base.translation.tolist(), odom_T_base.quaternion_xyzw.tolist()
    pose = make(
        "geometry_msgs/msg/Pose",
        position=make("geometry_msgs/msg/Point", x=x, y=y, z=z),
        orientation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )
    twist = make(
        "geometry_msgs/msg/Twist",
        linear=make("geometry_msgs/msg/Vector3", x=forward, y=left, z=0.0),
        angular=make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=turn_rate),
    )
    return make(
        ODOMETRY,
        header=writer.header(stamp, "odom"),
        child_frame_id=writer.layout.base_frame,
        pose=make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
        twist=make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )

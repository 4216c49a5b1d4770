# SPDX-License-Identifier: Apache-2.0
"""How a map behaves as it grows: time of a scan, stalls, memory of far scans, and the costmap that follows it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.cloud import label_cloud
from perception.config import CloudConfig
from perception.costmap import CostmapProjector, GridGeometry
from perception.evaluation.map_figures import RAY_RANGE, Figure
from perception.evaluation.timing import peak_memory_since_reset_mb, reset_peak_memory
from perception.mapping import SemanticOcTree, SensorModel
from perception.mapping.bricks import REGIONS
from perception.simulation.box_house import SIZE, box_house, house_drive, house_frame
from perception.simulation.boxes import default_camera
from perception.simulation.sensor import DepthSensor

GROWTH = 100
FIRST_SCANS = 12
"""Scans of the first map, and insertions whose median is compared with that of as many at the end."""
SPACING = 12.8
"""Meters between the places of scans: they share no brick, and lie alike on the raster of regions."""
MEASURED = (100, 5)
"""Of so many frames of the drive through the house the first few are measured; the others only fill the map."""
KINECT_NOISE = 0.0014


def flatness_figures(
    points: NDArray[np.floating], origin: NDArray[np.floating], resolution: float = 0.05, growth: int = GROWTH
) -> list[Figure]:
    """Time of one and the same scan at ever new places, until the map is 100 times as large as after the first ones.

    Args:
        points: (N, 3) meters.
        origin: (3,) of the sensor.
        resolution: meters.
        growth: how many times larger the map becomes.
    """
    tree = SemanticOcTree(resolution, SensorModel(max_range=RAY_RANGE))
    count = FIRST_SCANS * growth
    side = int(np.ceil(np.sqrt(count)))
    wall, own, sizes = np.empty(count), np.empty(count), []
    shifted = np.empty(points.shape, np.float32)
    for number in range(count):
        shift = SPACING * (np.array([number % side, number // side, 0]) - side // 2)
        np.add(points, shift, out=shifted, casting="unsafe")
        start, began = time.perf_counter(), time.thread_time()
        tree.insert_cloud(shifted, origin + shift)
        wall[number], own[number] = time.perf_counter() - start, time.thread_time() - began
        if number in (FIRST_SCANS - 1, count - 1):
            sizes.append(tree.known_voxels())
    # The very first scans also pay for the scan's own buffers.
    wall, own = 1e3 * wall[2:], 1e3 * own[2:]
    early, late = np.median(wall[:FIRST_SCANS]), np.median(wall[-FIRST_SCANS:])
    how = f"{len(points):,} points at {count:,} places, {sizes[0]:,} to {sizes[1]:,} known voxels"
    times = f"{early:.2f} to {late:.2f} ms a scan"
    # Copying or rehashing would be done by the inserting thread; its CPU time knows no other process.
    stall = f"CPU time of the inserting thread, the hash grew to {_regions(tree):,} regions; wall {np.ptp(wall):.1f} ms"
    return [
        Figure(
            f"insertion in a map {growth} x larger", 100 * (late / early - 1), "% more time", 20, how=f"{how}, {times}"
        ),
        Figure("longest insertion above the median", own.max() - float(np.median(own)), "ms", 10, how=stall),
    ]


def _regions(tree: SemanticOcTree) -> int:
    return sum(int(shard.counters[REGIONS]) for shard in tree._store.shards)


def costmap_figures(resolution: float = 0.05, stride: int = 1) -> list[Figure]:
    """Time to bring the costmap of a 20 x 20 m house up to date after each scan of a robot that explores it.

    Args:
        resolution: of map and costmap, meters.
        stride: only every so many frames of the drive are taken, for quick runs.
    """
    house, sensor = box_house(), DepthSensor(noise=KINECT_NOISE, max_range=10.0)
    tree = SemanticOcTree(resolution, SensorModel(max_range=RAY_RANGE), house.label_set.num_classes)
    cells = round(SIZE / resolution)
    projector = CostmapProjector(tree, house.label_set, geometry=GridGeometry(resolution, cells, cells, (0.0, 0.0)))
    fine, coarse = default_camera(640, 480), default_camera(320, 240)
    times, changed = [], []
    for number, place in enumerate(house_drive()[::stride]):
        measured = number % MEASURED[0] < MEASURED[1]
        if not measured and number % 5:
            continue
        camera = fine if measured else coarse
        frame = house_frame(house, place, camera, number, sensor)
        cloud = label_cloud(frame.depth, camera, frame.labels, config=CloudConfig(), no_return_range=RAY_RANGE)
        map_T_camera = frame.map_T_camera
        clear = map_T_camera.apply(cloud.clear_points) if cloud.clear_points is not None else None
        tree.insert_cloud(
            map_T_camera.apply(cloud.points), map_T_camera.translation, cloud.labels, cloud.confidence, clear
        )
        start = time.perf_counter()
        update = projector.update()
        if measured and number % MEASURED[0]:
            times.append(time.perf_counter() - start)
            changed.append(0 if update.changed is None else update.changed[2] * update.changed[3])
    grid = projector.grid()
    rebuilt = CostmapProjector(tree, house.label_set, geometry=projector.geometry).rebuild().grid
    known = float((grid.data >= 0).mean())
    how = (
        f"{len(times)} frames of 640x480 in a house of 20 x 20 m, {100 * known:.0f} % of the cells known at the end, "
        f"p95 {1e3 * np.percentile(times, 95):.1f} ms"
    )
    differing = float((grid.data != rebuilt.data).sum())
    return [
        Figure("costmap update after a scan", 1e3 * float(np.median(times)), "ms", 2, how=how),
        Figure("cells that differ from a full rebuild", differing, "cells", 0, how=f"{grid.data.size:,} cells"),
    ]


def far_scan(resolution: float, distance: float, rays: int, seed: int = 0) -> dict[str, float]:
    """Memory and time of one sparse scan of far points, measured in this process.

    Args:
        resolution: meters.
        distance: of every point from the sensor, meters.
        rays: how many points.
        seed: of their directions.

    Returns:
        growth_mb: by how much the process's largest resident memory grew while the scan was inserted; map_mb: how
        much of that the map has; seconds; parts; known_voxels.
    """
    from perception.mapping.warmup import warm_up

    warm_up()
    ways = np.random.default_rng(seed).normal(size=(rays, 3))
    points = distance * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    tree = SemanticOcTree(resolution, SensorModel(max_range=-1.0))
    before, start = reset_peak_memory(), time.perf_counter()
    report = tree.insert_cloud(points, np.zeros(3))
    return {
        "growth_mb": peak_memory_since_reset_mb() - before,
        "map_mb": tree.memory_usage() / 1e6,
        "seconds": time.perf_counter() - start,
        "parts": report.parts,
        "known_voxels": tree.known_voxels(),
    }


def far_scan_figures(cases: Sequence[tuple[float, float, int]]) -> list[Figure]:
    """Memory that a scan takes beside the map, each case (resolution, distance, rays) in a process of its own."""
    figures = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for resolution, distance, rays in cases:
            found = pool.apply(far_scan, (resolution, distance, rays))
            how = (
                f"{rays:,} rays, {found['known_voxels']:,.0f} voxels in {found['parts']:,.0f} parts, "
                f"{found['seconds']:.1f} s; the map itself takes {found['map_mb']:.0f} MB more"
            )
            name = f"memory of a scan of {distance:g} m at {100 * resolution:g} cm"
            figures.append(Figure(name, found["growth_mb"] - found["map_mb"], "MB", 200, how=how))
    return figures

# SPDX-License-Identifier: Apache-2.0
"""Small folders of images in the layouts that are read, with numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 8, 6
POSE = "0 0 1 {x}\n-1 0 0 2\n0 -1 0 3\n0 0 0 1\n"


def color_of(index: int) -> np.ndarray:
    """(6, 8, 3) RGB, a plain color that names the frame."""
    return np.full((HEIGHT, WIDTH, 3), (10 + index, 100, 200), np.uint8)


def depth_of(index: int) -> np.ndarray:
    """(6, 8) uint16: row 0 is 0 and 65535, the rest 1000 + index."""
    depth = np.full((HEIGHT, WIDTH), 1000 + index, np.uint16)
    depth[0, :4], depth[0, 4:] = 0, 65535
    return depth


def write_rgb(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def seven_scenes(folder: Path, count: int = 3, labels: str = "") -> Path:
    """frame-000000 …; camera i stands at x = i, y = 2, z = 3."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "camera-intrinsics.txt").write_text("5 0 3.5\n0 5 2.5\n0 0 1\n")
    for i in range(count):
        stem = folder / f"frame-{i:06d}"
        write_rgb(Path(f"{stem}.color.png"), color_of(i))
        write_rgb(Path(f"{stem}.depth.png"), depth_of(i))
        Path(f"{stem}.pose.txt").write_text(POSE.format(x=i))
        if labels:
            truth = np.zeros((HEIGHT, WIDTH), np.uint8)
            truth[2:] = 255 if labels == "mask" else i + 1
            write_rgb(Path(f"{stem}.{labels}.png"), truth)
    return folder


TUM_YAML = """
layout: tum
depth: {scale: 5000, invalid: [0]}
intrinsics: {fx: 5, fy: 5, cx: 3.5, cy: 2.5, width: 8, height: 6}
"""


def tum(folder: Path, color_s: list[str], depth_s: list[str], truth: str, yaml_text: str = TUM_YAML) -> Path:
    """rgb/ and depth/ named by their stamps, with lists; depth image j holds 5000 + j everywhere."""
    for i, stamp in enumerate(color_s):
        write_rgb(folder / "rgb" / f"{stamp}.png", color_of(i))
    for j, stamp in enumerate(depth_s):
        write_rgb(folder / "depth" / f"{stamp}.png", np.full((HEIGHT, WIDTH), 5000 + j, np.uint16))
    (folder / "rgb.txt").write_text("# color images\n" + "".join(f"{s} rgb/{s}.png\n" for s in color_s))
    (folder / "depth.txt").write_text("# depth maps\n" + "".join(f"{s} depth/{s}.png\n" for s in depth_s))
    (folder / "groundtruth.txt").write_text("# stamp tx ty tz qx qy qz qw\n" + truth)
    (folder / "dataset.yaml").write_text(yaml_text)
    return folder

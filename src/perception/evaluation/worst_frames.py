# SPDX-License-Identifier: Apache-2.0
"""Keeps the frames that were labeled worst, and draws them as plain images for a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.atomic_file import atomic_write
from perception.errors import InputError
from perception.evaluation.pictures import overlay
from perception.evaluation.run_folder import WORST
from perception.types import LabelImage

WRONG = np.array([230, 30, 30], np.uint8)


@dataclass(frozen=True, slots=True)
class _Kept:
    index: int
    stamp_ns: int
    score: float | None
    mean_iou: float | None
    color: NDArray[np.uint8]
    labels: LabelImage
    truth: NDArray[np.int32] | None
    predicted: NDArray[np.int32]


class WorstFrames:
    """The worst frames of a run of any length, in constant memory; without truth some that are evenly spread.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._worst: list[_Kept] = []
        self._spread: list[_Kept] = []
        self._frames, self._step = 0, 1

    def add(
        self,
        index: int,
        result: Any,
        truth: NDArray[np.int32] | None,
        predicted: NDArray[np.int32],
        scores: tuple[float | None, float | None],
    ) -> None:
        """Look at a frame.

        Args:
            index: its number.
            result: its FrameResult, with labels.
            truth: (H, W) true ids as they are scored, None where there are none.
            predicted: (H, W) predicted ids as they are scored.
            scores: pixel accuracy and mean IoU; None without truth.
        """
        score, mean_iou = scores
        if score is None and self._frames % self._step:
            self._frames += 1
            return
        frame = result.frame
        kept = _Kept(index, frame.stamp_ns, score, mean_iou, frame.color, result.labels, truth, predicted)
        if score is not None:
            self._worst.append(kept)
            self._worst = sorted(self._worst, key=lambda entry: (entry.score, entry.index))[: self._count]
            return
        self._frames += 1
        self._spread.append(kept)
        if len(self._spread) > 2 * self._count:
            self._spread, self._step = self._spread[::2], 2 * self._step

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write the pictures below a run folder; returns what ``summary.json`` says of them."""
        chosen = self._worst
        if not chosen and self._spread:
            picks = np.linspace(0, len(self._spread) - 1, min(self._count, len(self._spread))).round().astype(int)
            chosen = [self._spread[i] for i in dict.fromkeys(picks.tolist())]
        if chosen:
            (folder / WORST).mkdir(exist_ok=True)
        return [self._draw(folder, rank, kept) for rank, kept in enumerate(chosen)]

    @staticmethod
    def _draw(folder: Path, rank: int, kept: _Kept) -> dict[str, Any]:
        colorize = kept.labels.label_set.colorize
        images = {
            "color": kept.color,
            "labels": colorize(kept.labels.labels),
            "overlay": overlay(kept.color, kept.labels),
        }
        if kept.truth is not None:
            images["truth"] = colorize(kept.truth)
            images["error"] = _errors(kept.color, kept.truth, kept.predicted)
        entry: dict[str, Any] = {"rank": rank, "frame": kept.index, "stamp_ns": kept.stamp_ns}
        entry |= {"score": kept.score, "mean_iou": kept.mean_iou, "truth": None, "error": None}
        for name, image in images.items():
            entry[name] = f"{WORST}/{rank:03d}_{name}.png"
            write_png(folder / entry[name], image)
        return entry


def _errors(color: NDArray[np.uint8], truth: NDArray[np.int32], predicted: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The image in gray with wrong pixels red; dark where the truth says nothing."""
    gray = color.mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    gray[truth < 0] //= 3
    wrong = (truth >= 0) & (truth != predicted)
    gray[wrong] = gray[wrong] // 3 + WRONG // 3 * 2
    return gray


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 RGB image; InputError when it cannot be encoded."""
    import cv2

    done, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not done:
        raise InputError(f"{path}: the image cannot be written as PNG")
    atomic_write(path, [data.tobytes()])

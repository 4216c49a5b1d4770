# SPDX-License-Identifier: Apache-2.0
"""A segmenter around anything that turns a normalized image into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.labels import LabelSet
from perception.models.base import check_image
from perception.models.decoding import InputSpec, decode_logits, prepare
from perception.types import LabelImage

Run = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Takes (1, 3, height, width) float32, gives (h, w, C) float logits."""
RunBatch = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Takes (N, 3, height, width) float32, gives (N, h, w, C) float logits."""
MAX_LOGIT = 1e30
"""Differences of larger numbers would overflow float32 between two logits."""


class NetworkSegmenter:
    """Resize, normalize, run, decode.

    Args:
        name: for reports.
        device: for reports.
        label_set: channel k of the logits is its k-th class by ascending id.
        spec: what the network wants to see.
        run: the network.
        grid: where the logits lie, see :func:`perception.models.decoding.decode_logits`.
        num_threads: of the decoding; 1 for the calling thread alone.
        run_batch: the network on several images at once, where it can.
    """

    def __init__(
        self,
        name: str,
        device: str,
        label_set: LabelSet,
        spec: InputSpec,
        run: Run,
        grid: str = "half_pixel",
        num_threads: int = 0,
        run_batch: RunBatch | None = None,
    ) -> None:
        self.name = name
        self.device = device
        self.label_set = label_set
        self.spec = spec
        self._run = run
        self._run_batch = run_batch
        self._grid = grid
        self._num_threads = num_threads
        self._ids = np.array([label.id for label in label_set.classes], np.int32)
        self._contiguous = len(label_set) == label_set.num_classes

    def logits(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's own output for an (H, W, 3) uint8 RGB image: (h, w, C) float32, checked.

        Raises:
            InputError: wrong image, or the network gave another shape or numbers that are not finite.
        """
        check_image(rgb)
        size = self.spec.size_for(rgb.shape[0], rgb.shape[1])
        return self._checked(np.asarray(self._run(prepare(rgb, size, self.spec))))

    def _checked(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        if logits.ndim != 3 or logits.shape[2] != len(self._ids) or 0 in logits.shape:
            raise InputError(
                f"network {self.name}: expected logits (h, w, {len(self._ids)}) as label set "
                f"{self.label_set.name!r} has classes, got {logits.shape}"
            )
        if not (logits.min() > -MAX_LOGIT and logits.max() < MAX_LOGIT):
            raise InputError(f"network {self.name}: expected finite logits, got NaN, infinity or numbers near it")
        return logits.astype(np.float32, copy=False)

    def __call__(self, rgb: NDArray[np.uint8]) -> LabelImage:
        """Label an (H, W, 3) uint8 RGB image; raises InputError as :meth:`logits` does."""
        return self._decoded(self.logits(rgb), (rgb.shape[0], rgb.shape[1]))

    def predict_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[LabelImage]:
        """Label (H, W, 3) uint8 RGB images: in one run where the network can and sees all in one size.

        Raises:
            InputError: as :meth:`logits` does, of any of them.
        """
        for rgb in images:
            check_image(rgb)
        sizes = {self.spec.size_for(rgb.shape[0], rgb.shape[1]) for rgb in images}
        if self._run_batch is None or len(images) < 2 or len(sizes) > 1:
            return [self(rgb) for rgb in images]
        size = sizes.pop()
        batch = np.asarray(self._run_batch(np.concatenate([prepare(rgb, size, self.spec) for rgb in images])))
        if len(batch) != len(images):
            raise InputError(f"network {self.name}: expected logits of {len(images)} images, got {batch.shape}")
        return [
            self._decoded(self._checked(logits), (rgb.shape[0], rgb.shape[1]))
            for logits, rgb in zip(batch, images, strict=True)
        ]

    def _decoded(self, logits: NDArray[np.float32], size: tuple[int, int]) -> LabelImage:
        index, confidence = decode_logits(logits, size, self.spec.size_for(*size), self._grid, self._num_threads)
        return LabelImage(index if self._contiguous else self._ids[index], confidence, self.label_set)

    def warm_up(self) -> None:
        """Run once on a gray 640×480 image: compiles the decoder and lets the library allocate."""
        self(np.full((480, 640, 3), 128, np.uint8))

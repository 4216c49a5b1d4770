# SPDX-License-Identifier: Apache-2.0
"""Which image comes when, and batches of them.

Everything is a pure function of the seed and a sample's number: a run that resumes, or is shared by several processes,
sees the same samples, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from perception.errors import PerceptionError
from perception.training.augmentation import Augmentation
from perception.training.datasets import SegmentationData


@dataclass
class Batch:
    """Samples of one step.

    Attributes:
        images: (N, 3, H, W) uint8 RGB, channels last in memory.
        labels: (N, H, W) uint8, 255 where there is no label.
        supervised: (N,) float32, factor of the losses against labels.
        distillation: (N,) float32, factor of the loss against the teacher.
    """

    images: torch.Tensor
    labels: torch.Tensor
    supervised: torch.Tensor
    distillation: torch.Tensor

    def pin_memory(self) -> Batch:
        """The same in memory from which a GPU can copy by itself."""
        return Batch(*(value.pin_memory() for value in self._values()))

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(value.to(device, non_blocking=True) for value in self._values()))

    def _values(self) -> tuple[torch.Tensor, ...]:
        return self.images, self.labels, self.supervised, self.distillation


class Mixture:
    """The order in which the images of several data sets come.

    Every epoch holds each data set in proportion to its weight. Within a data set every image comes once before one
    comes again, across epochs too.

    Args:
        sizes: number of images of each data set.
        weights: of each data set.
        samples: per epoch.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], samples: int, seed: int) -> None:
        self._sizes = sizes
        self._seed = seed
        shares = np.asarray(weights, np.float64) / np.sum(weights)
        # Largest remainders, so that the counts add up to the epoch.
        counts = np.floor(shares * samples).astype(int)
        rest = np.argsort(counts - shares * samples, kind="stable")[: samples - counts.sum()]
        counts[rest] += 1
        self.counts: list[int] = counts.tolist()

    def epoch(self, number: int) -> NDArray[np.int64]:
        """(samples, 2) index of the data set and of the image in it."""
        rows = []
        for data, (size, count) in enumerate(zip(self._sizes, self.counts, strict=True)):
            places = np.arange(number * count, (number + 1) * count)
            rounds, inside = np.divmod(places, size)
            index = np.empty(count, np.int64)
            for turn in np.unique(rounds):
                order = np.random.default_rng([self._seed, 1, data, int(turn)]).permutation(size)
                index[rounds == turn] = order[inside[rounds == turn]]
            rows.append(np.stack([np.full(count, data), index], 1))
        order = np.random.default_rng([self._seed, 2, number]).permutation(sum(self.counts))
        return np.concatenate(rows)[order]


Sample = tuple[NDArray[np.uint8], NDArray[np.uint8], float, float]


class TrainingSamples(Dataset):
    """Sample number n of a whole run, augmented.

    Args:
        data: data sets.
        mixture: their order.
        augmentation: what happens to each image.
        seed: of the augmentation.
    """

    def __init__(
        self, data: Sequence[SegmentationData], mixture: Mixture, augmentation: Augmentation, seed: int
    ) -> None:
        self._data = data
        self._mixture = mixture
        self._augmentation = augmentation
        self._seed = seed
        self._per_epoch = sum(mixture.counts)
        self._plan: tuple[int, NDArray[np.int64]] = (-1, np.empty((0, 2), np.int64))

    def __getitem__(self, number: int) -> Sample | PerceptionError:
        """Image, mask and loss factors; an expected error is returned, to be raised by the main process."""
        _settle_worker()
        epoch, place = divmod(number, self._per_epoch)
        if self._plan[0] != epoch:
            self._plan = (epoch, self._mixture.epoch(epoch))
        which, index = self._plan[1][place].tolist()
        data = self._data[which]
        try:
            image, mask = data.read(index)
            seed = int(np.random.default_rng([self._seed, 3, number]).integers(2**32))
            image, mask = self._augmentation(image, mask, seed)
        except PerceptionError as error:
            return error
        return image, mask, data.config.supervised, data.config.distillation


class OrderedSamples(Dataset):
    """Images of one data set in order, at one size."""

    def __init__(self, data: SegmentationData, augmentation: Augmentation) -> None:
        self._data = data
        self._augmentation = augmentation

    def __getitem__(self, number: int) -> Sample | PerceptionError:
        """As in :class:`TrainingSamples`."""
        _settle_worker()
        try:
            return (*self._augmentation(*self._data.read(number), 0), 1.0, 1.0)
        except PerceptionError as error:
            return error


def collate(samples: Sequence[Sample | PerceptionError]) -> Batch | PerceptionError:
    """A batch, or the first error among its samples."""
    whole: list[Sample] = []
    for sample in samples:
        if isinstance(sample, PerceptionError):
            return sample
        whole.append(sample)
    images = torch.from_numpy(np.stack([sample[0] for sample in whole])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([sample[1] for sample in whole]))
    factors = torch.tensor([sample[2:] for sample in whole], dtype=torch.float32)
    return Batch(images, labels, factors[:, 0], factors[:, 1])


def load_batches(
    samples: Dataset, numbers: Sequence[Sequence[int]], workers: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Batches of the samples with these numbers, read ahead by worker processes.

    Raises:
        PerceptionError: what reading a sample raised.
    """
    loader = DataLoader(
        samples,
        batch_sampler=numbers,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        prefetch_factor=2 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, PerceptionError):
            raise batch
        yield batch


def _settle_worker() -> None:
    if get_worker_info() is not None:
        import cv2

        # One process per worker is enough; OpenCV's threads would fight with the network's.
        cv2.setNumThreads(0)

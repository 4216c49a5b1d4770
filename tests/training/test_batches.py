# SPDX-License-Identifier: Apache-2.0
"""The order of samples, augmentation and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.errors import InputError
from perception.labels import LabelSet
from perception.training.augmentation import Augmentation, resize
from perception.training.batches import Mixture, TrainingSamples, load_batches
from perception.training.config import AugmentationConfig, DataConfig
from perception.training.datasets import open_data

ADE = LabelSet.load("ade20k32")
TRANSFORMS = [
    {"RandomResizedCrop": {"size": [24, 32], "scale": [0.3, 1.0]}},
    {"HorizontalFlip": {"p": 0.5}},
    {"OneOf": {"transforms": [{"GaussNoise": {}}, {"GaussianBlur": {}}], "p": 0.5}},
]


def samples(rooms: Path, **config: object) -> TrainingSamples:
    data = [open_data(DataConfig(path=str(rooms), **config), ADE)]
    augmentation = Augmentation(AugmentationConfig(height=24, width=32, transforms=TRANSFORMS))
    return TrainingSamples(data, Mixture([len(data[0])], [1.0], 8, seed=3), augmentation, seed=3)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    samples=st.integers(1, 60),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_epochs_hold_every_data_set_in_proportion_and_every_image_equally_often(sizes, samples, seed):
    weights = [index + 1.0 for index in range(len(sizes))]
    mixture = Mixture(sizes, weights, samples, seed)
    epochs = [mixture.epoch(number) for number in range(4)]
    for data, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        counts = [int((epoch[:, 0] == data).sum()) for epoch in epochs]
        assert len(set(counts)) == 1 and abs(counts[0] - samples * weight / sum(weights)) < 1
        seen = np.concatenate([epoch[epoch[:, 0] == data, 1] for epoch in epochs])
        times = np.bincount(seen, minlength=size)
        assert times.max() - times.min() <= 1
    assert all(len(epoch) == samples for epoch in epochs)


def test_the_order_depends_on_seed_and_epoch_alone():
    first, again = (Mixture([50, 20], [1, 1], 40, seed=1) for _ in range(2))
    first.epoch(0)
    assert np.array_equal(first.epoch(5), again.epoch(5))
    assert not np.array_equal(first.epoch(5), first.epoch(6))
    assert not np.array_equal(first.epoch(5), Mixture([50, 20], [1, 1], 40, seed=2).epoch(5))


def test_worker_processes_give_the_same_batches_as_none(rooms: Path):
    numbers = [[0, 1, 2], [3, 4, 5]]
    here = list(load_batches(samples(rooms), numbers, workers=0))
    there = list(load_batches(samples(rooms, supervised=0.5), numbers, workers=1))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        assert one.images.shape == (3, 3, 24, 32) and one.images.dtype == torch.uint8
        assert other.supervised.tolist() == [0.5] * 3 and one.supervised.tolist() == [1.0] * 3


def test_an_error_in_a_worker_keeps_its_message(tmp_path: Path, rooms: Path):
    data = samples(rooms)
    broken = tmp_path / "frame-000000.color.png"
    broken.write_bytes(b"no picture")
    data._data[0].items = [type(data._data[0].items[0])(broken)] * 8
    with pytest.raises(InputError, match=r"^[^\n]*frame-000000\.color\.png[^\n]*$"):
        list(load_batches(data, [[0, 1]], workers=1))


def test_augmentation_repeats_itself_for_a_seed_and_moves_image_and_mask_together():
    augmentation = Augmentation(AugmentationConfig(height=24, width=32, transforms=TRANSFORMS[:2]))
    mask = np.random.default_rng(0).integers(0, 2, (6, 8), np.uint8).repeat(8, 0).repeat(8, 1)
    image = np.repeat(mask[..., None] * 200, 3, 2)
    results = [augmentation(image, mask, seed) for seed in (1, 2, 1)]
    assert np.array_equal(results[0][0], results[2][0]) and np.array_equal(results[0][1], results[2][1])
    assert not np.array_equal(results[0][0], results[1][0])
    for changed, labels in results:
        assert ((changed[..., 0] > 100) == (labels == 1)).mean() > 0.9


def test_what_a_rotation_invents_has_no_class():
    config = AugmentationConfig(
        height=32, width=32, transforms=[{"Rotate": {"limit": [45, 45], "border_mode": 0, "p": 1.0}}]
    )
    _, mask = Augmentation(config)(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.uint8), 0)
    assert mask[0, 0] == 255 and mask[16, 16] == 1 and set(np.unique(mask)) == {1, 255}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"Flop": {}}, "albumentations has no transform 'Flop'"),
        ({"Compose": {"transforms": [{"np": {}}]}}, "no transform 'np'"),
        ({"HorizontalFlip": {"chance": 1}}, r"HorizontalFlip has no arguments \['chance'\]; expected some of \['p'\]"),
        (["HorizontalFlip"], "expected entries"),
    ],
)
def test_unknown_transforms_and_arguments_are_refused(entry, message: str):
    with pytest.raises(InputError, match=message):
        Augmentation(AugmentationConfig(transforms=[entry]))


def test_transforms_that_end_in_another_size_are_refused():
    augmentation = Augmentation(AugmentationConfig(height=32, width=32, transforms=[{"HorizontalFlip": {}}]))
    with pytest.raises(InputError, match=r"expected images of \(32, 32, 3\) uint8 at the end, got \(16, 16, 3\)"):
        augmentation(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), 0)


def test_resizing_keeps_ids_and_mixes_colors():
    mask = np.array([[1, 1, 8, 8], [1, 1, 8, 8]], np.uint8)
    image = np.repeat(mask[..., None], 3, 2) * 10
    small, labels = resize(image, mask, (1, 2))
    assert labels.tolist() == [[1, 8]] and small[0, :, 0].tolist() == [10, 80]

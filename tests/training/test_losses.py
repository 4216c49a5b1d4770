# SPDX-License-Identifier: Apache-2.0
"""Losses against hand-computed numbers and PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from perception.errors import InputError
from perception.labels import LabelSet
from perception.training.config import DistillationConfig, LossConfig
from perception.training.losses import (
    Loss,
    Targets,
    add_anchor_gradient,
    class_weights,
    cross_entropy,
    dice,
    distillation,
    focal,
    taught,
)

ONE = torch.ones(1)


def image(*rows: list[float]) -> torch.Tensor:
    """Logits (1, C, 1, pixels) from one row per pixel."""
    return torch.tensor(rows).T[None, :, None, :].contiguous()


def labels(*values: int) -> torch.Tensor:
    return torch.tensor([[list(values)]], dtype=torch.uint8)


def probabilities(*values: float) -> list[float]:
    return [math.log(value) for value in values]


def random_batch(images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 5, (images, 6, 7), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = 255
    return torch.randn(images, 5, 6, 7, generator=generator), truth


def test_cross_entropy_is_the_mean_log_of_the_true_class_over_labeled_pixels():
    logits = image(probabilities(0.5, 0.5), probabilities(0.25, 0.75), probabilities(0.9, 0.1))
    expected = (math.log(2) + math.log(4)) / 2
    assert cross_entropy(logits, labels(0, 0, 255), ONE).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_class_weights_equals_torch(smoothing: float):
    logits, truth = random_batch()
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    expected = functional.cross_entropy(logits, truth, weights, ignore_index=255, label_smoothing=smoothing)
    assert cross_entropy(logits, truth, torch.ones(4), weights=weights, smoothing=smoothing).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_focal_loss_is_cross_entropy_times_the_power_of_the_error():
    logits = image(probabilities(0.5, 0.5), probabilities(0.8, 0.2))
    expected = (0.25 * math.log(2) + 0.04 * math.log(1.25)) / 2
    assert focal(logits, labels(0, 0), ONE, gamma=2.0).item() == pytest.approx(expected, rel=1e-5)
    assert focal(logits, labels(0, 0), ONE, gamma=0.0).item() == pytest.approx(
        cross_entropy(logits, labels(0, 0), ONE).item(), rel=1e-6
    )


def test_dice_counts_only_classes_that_the_image_shows():
    logits = image(probabilities(0.5, 0.25, 0.25), probabilities(0.5, 0.25, 0.25), probabilities(0.1, 0.1, 0.8))
    # Class 0: overlap 0.5, sizes 1 + 1 (the unlabeled third pixel counts nowhere); class 1: 0.25, 0.5 + 1.
    expected = ((1 - 2 * 0.5 / 2) + (1 - 2 * 0.25 / 1.5)) / 2
    assert dice(logits, labels(0, 1, 255), ONE).item() == pytest.approx(expected, rel=1e-5)


def test_images_with_factor_zero_count_nothing():
    logits, truth = random_batch(2)
    factors = torch.tensor([1.0, 0.0])
    for loss in (cross_entropy, focal, dice):
        alone = loss(logits[:1], truth[:1], ONE)
        assert loss(logits, truth, factors).item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_batch_without_labels_costs_nothing_and_has_a_gradient_of_zero():
    logits = torch.randn(2, 5, 3, 3, requires_grad=True)
    nothing = torch.full((2, 3, 3), 255)
    for loss in (cross_entropy, focal, dice):
        value = loss(logits, nothing, torch.ones(2))
        assert value.item() == 0.0
        (gradient,) = torch.autograd.grad(value, logits)
        assert not gradient.any()


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice])
def test_gradients_averaged_over_two_processes_are_those_of_the_whole_batch(loss):
    logits, truth = random_batch()
    truth[3] = 255
    logits.requires_grad_()
    factors = torch.ones(4)
    (whole,) = torch.autograd.grad(loss(logits, truth, factors), logits)
    sums = []

    def note(denominator):
        sums.append(denominator.detach())
        return denominator

    for part in (slice(0, 2), slice(2, 4)):
        loss(logits[part], truth[part], factors[part], note)
    mean = (sums[0] + sums[1]) / 2
    parts = [loss(logits[part], truth[part], factors[part], lambda _: mean) for part in (slice(0, 2), slice(2, 4))]
    (shared,) = torch.autograd.grad((parts[0] + parts[1]) / 2, logits)
    torch.testing.assert_close(shared, whole)


def test_distillation_is_the_divergence_of_softened_answers_times_the_squared_temperature():
    teacher, student = image(probabilities(0.8, 0.2)), image(probabilities(0.5, 0.5))
    targets = Targets(labels(255), ONE, teacher, ONE)
    one = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert distillation(student, targets, DistillationConfig(temperature=1.0)).item() == pytest.approx(one, rel=1e-5)
    # At temperature 2 the odds 4 become 2.
    two = 4 * (2 / 3 * math.log((2 / 3) / 0.5) + 1 / 3 * math.log((1 / 3) / 0.5))
    assert distillation(student, targets, DistillationConfig(temperature=2.0)).item() == pytest.approx(two, rel=1e-5)
    same = Targets(labels(255), ONE, student, ONE)
    assert distillation(student, same, DistillationConfig()).item() == pytest.approx(0.0, abs=1e-7)


def test_the_teacher_speaks_only_where_it_may():
    teacher = image(probabilities(0.9, 0.1), probabilities(0.6, 0.4), probabilities(0.9, 0.1), probabilities(0.9, 0.1))
    truth = labels(255, 255, 0, 1)
    cases = {
        "all": [True, False, True, True],
        "unlabeled": [True, False, False, False],
        "agreeing": [True, False, True, False],
    }
    for where, expected in cases.items():
        config = DistillationConfig(min_confidence=0.8, where=where)
        assert taught(teacher, truth, config).flatten().tolist() == expected


def test_the_sum_has_one_term_for_each_factor():
    logits, truth = random_batch()
    labels_of = LabelSet.anonymous(range(5))
    targets = Targets(truth, torch.ones(4), logits + 1, torch.ones(4))
    config = LossConfig(cross_entropy=2.0, dice=0.5, distillation=DistillationConfig(weight=1.0))
    terms = Loss(config, labels_of)(logits, targets)
    assert sorted(terms) == ["cross_entropy", "dice", "distillation"]
    assert terms["cross_entropy"].item() == pytest.approx(2 * cross_entropy(logits, truth, torch.ones(4)).item())


def test_class_weights_of_an_unknown_class_are_refused():
    with pytest.raises(InputError, match="no class 'tre'"):
        class_weights({"tre": 2.0}, LabelSet.load("ade20k32"))


def test_anchor_gradient_equals_that_of_the_penalty():
    start = [torch.randn(3, 2), torch.randn(4)]
    parameters = [torch.randn_like(value).requires_grad_() for value in start]
    penalty = sum(((p - s) ** 2).sum() for p, s in zip(parameters, start, strict=True)) * 0.3 / 2
    expected = torch.autograd.grad(penalty, parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    add_anchor_gradient(parameters, start, 0.3)
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, value + 1)

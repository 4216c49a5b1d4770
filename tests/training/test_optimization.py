# SPDX-License-Identifier: Apache-2.0
"""Learning rates, optimizers and averages."""

from __future__ import annotations

import pytest
import torch

from perception.errors import InputError
from perception.training.config import AverageConfig, OptimizerConfig, ScheduleConfig
from perception.training.optimization import make_average, make_optimizer, make_schedule


def rates(config: ScheduleConfig, steps: int = 8, per_epoch: int = 2) -> list[list[float]]:
    """The rate of each group in each step; the second group has a tenth."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "rate_factor": factor, "weight_decay": 0.0}
        for factor in (1.0, 0.1)
    ]
    optimizer = make_optimizer(groups, OptimizerConfig(name="sgd", rate=1.0))
    schedule = make_schedule(optimizer, config, steps, per_epoch)
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def first(found: list[list[float]]) -> list[float]:
    return [group[0] for group in found]


def test_poly_falls_by_the_power_and_groups_keep_their_ratio():
    found = rates(ScheduleConfig(name="poly", power=0.9))
    assert first(found) == pytest.approx([(1 - step / 8) ** 0.9 for step in range(8)])
    assert all(small == pytest.approx(0.1 * large) for large, small in found)


def test_cosine_ends_near_its_share_of_the_highest_rate_in_every_group():
    found = rates(ScheduleConfig(name="cosine", final=0.2), steps=4)
    half = 0.5**0.5
    expected = [0.2 + 0.8 * (1 + cosine) / 2 for cosine in (1, half, 0, -half)]
    assert first(found) == pytest.approx(expected)
    assert [group[1] for group in found] == pytest.approx([0.1 * value for value in expected])


def test_step_falls_every_so_many_epochs():
    found = rates(ScheduleConfig(name="step", step_epochs=2, gamma=0.1))
    assert first(found) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])


def test_one_cycle_rises_to_the_rate_and_falls_below_where_it_began():
    found = first(rates(ScheduleConfig(name="one_cycle"), steps=20))
    assert max(found) == pytest.approx(1.0, rel=0.05) and 0 < found.index(max(found)) < 10
    assert found[-1] < found[0] < 0.1


def test_warm_up_rises_in_equal_steps_and_then_the_curve_begins():
    found = first(rates(ScheduleConfig(name="constant", warmup_steps=3), steps=6))
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    found = first(rates(ScheduleConfig(name="poly", power=1.0, warmup_steps=4), steps=8))
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 0.75, 0.5, 0.25])


def test_impossible_warm_ups_are_refused():
    with pytest.raises(InputError, match="less than the run's 8 steps, got 8"):
        rates(ScheduleConfig(warmup_steps=8))
    with pytest.raises(InputError, match="expected 0 with one_cycle"):
        rates(ScheduleConfig(name="one_cycle", warmup_steps=1))


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adam", "adamw"])
def test_every_optimizer_goes_downhill(name: str):
    parameter = torch.nn.Parameter(torch.tensor([3.0]))
    groups = [{"params": [parameter], "rate_factor": 1.0, "weight_decay": 0.0}]
    optimizer = make_optimizer(groups, OptimizerConfig(name=name, rate=0.1))
    for _ in range(50):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert abs(parameter.item()) < 2.5


def values_averaged(config: AverageConfig) -> float:
    module = torch.nn.BatchNorm1d(1)
    average = make_average(module, config)
    assert average is not None
    for value in (1.0, 2.0, 6.0):
        module.weight.data.fill_(value)
        average.update_parameters(module)
    return average.module.get_parameter("weight").item()


def test_averages_are_the_mean_and_the_exponential_mean_of_the_steps():
    assert values_averaged(AverageConfig(name="swa")) == pytest.approx(3.0)
    assert values_averaged(AverageConfig(name="ema", decay=0.5)) == pytest.approx((1 * 0.5 + 2 * 0.5) * 0.5 + 6 * 0.5)

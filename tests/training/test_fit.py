# SPDX-License-Identifier: Apache-2.0
"""Whole training runs on small rooms."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from perception.errors import InputError, PerceptionError
from perception.evaluation.segmentation import ConfusionMatrix
from perception.models import create_segmenter
from perception.models.weights import load_arrays
from perception.training import fit as fit_module
from perception.training import run as run_module
from perception.training.batches import Batch
from perception.training.config import load_training_config
from perception.training.datasets import open_data
from perception.training.fit import fit
from perception.training.networks import network_card
from perception.training.output import plain

SOURCE = Path(__file__).resolve().parents[2] / "src"


class PowerCut(Exception):
    """Ends a run from outside."""


def cut_after(steps: int) -> Any:
    def report(step: int, _total: int, _figures: dict[str, Any]) -> None:
        if step == steps:
            raise PowerCut

    return report


def press_control_c_after(steps: int) -> Any:
    def report(step: int, _total: int, _figures: dict[str, Any]) -> None:
        if step == steps:
            os.kill(os.getpid(), signal.SIGINT)

    return report


def equal(first: Path, second: Path) -> bool:
    one, other = load_arrays(first), load_arrays(second)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_training_learns_and_leaves_a_model_that_the_registry_loads(make_config, tmp_path: Path):
    output = tmp_path / "run"
    config = make_config(
        epochs=3,
        steps=6,
        tensorboard=True,
        optimizer={"rate": 0.003},
        loss={"dice": 0.5, "focal": 0.1, "distillation": {"weight": 0.1, "min_confidence": 0.5}},
        schedule={"warmup_steps": 2},
    )
    result = fit(config, output)
    epochs = result["epochs"]
    assert epochs[-1]["losses"]["cross_entropy"] < 0.5 * epochs[0]["losses"]["cross_entropy"]
    (score,) = epochs[-1]["validation"].values()
    assert result["best_score"] > 0.4 and set(score["iou"]) == {"wall", "floor", "bed"}
    assert set(epochs[0]["seconds"]) == {"data", "forward", "backward", "step", "validation", "total"}
    assert all(value > 0 for value in epochs[0]["seconds"].values())
    assert (
        epochs[0]["remaining_s"] == pytest.approx(2 * epochs[0]["seconds"]["total"]) and epochs[-1]["remaining_s"] == 0
    )
    assert json.loads((output / "result.json").read_text()) == result
    assert (output / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((output / "tensorboard").glob("events*"))
    segmenter = create_segmenter(str(output / "model"), "cpu", backend="torch", input_size=(48, 64))
    assert segmenter.label_set == network_card(config.network)[1]
    data = open_data(config.validation[0], segmenter.label_set)
    confusion = ConfusionMatrix(32)
    for index in range(len(data)):
        image, mask = data.read(index)
        confusion.add(np.where(mask == 255, -1, mask.astype(np.int32)), segmenter(image).labels)
    best = epochs[result["best_epoch"]]["validation"][data.name]
    assert confusion.accuracy() == pytest.approx(best["accuracy"], abs=0.02)
    assert confusion.mean_iou() == pytest.approx(result["best_score"], abs=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"average": {"name": "ema", "decay": 0.9}, "schedule": {"warmup_steps": 1}, "loss": {"l2_sp": 0.1}},
        {"optimizer": {"name": "momentum"}, "schedule": {"name": "cosine"}, "network": {"batch_norm": "insert"}},
        {"optimizer": {"name": "adagrad"}, "schedule": {"name": "one_cycle"}, "average": {"name": "swa"}},
    ],
)
def test_an_interrupted_run_resumes_within_an_epoch_to_the_same_bits(
    make_config, tmp_path: Path, changes: dict[str, Any]
):
    config = make_config(**changes, validation=[])
    whole = fit(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "cut", report=press_control_c_after(3))
    assert json.loads((tmp_path / "cut" / "checkpoint.json").read_text())["progress"]["step"] == 3
    resumed = fit(config, tmp_path / "cut", resume=True)
    assert resumed["epochs"][1]["losses"] == whole["epochs"][1]["losses"]
    assert equal(tmp_path / "whole" / "last.safetensors", tmp_path / "cut" / "last.safetensors")


def test_dropout_and_batch_norm_of_torchvision_networks_resume_to_the_same_bits(make_config, tmp_path: Path):
    network = {"name": "lraspp_mobilenet_v3_large", "weights": "none"}
    config = make_config(network=network, validation=[], epochs=2, steps=1)
    fit(config, tmp_path / "whole")
    with pytest.raises(PowerCut):
        fit(config, tmp_path / "cut", report=cut_after(2))
    fit(config, tmp_path / "cut", resume=True)
    assert equal(tmp_path / "whole" / "last.safetensors", tmp_path / "cut" / "last.safetensors")


def test_a_checkpoint_of_another_network_or_a_used_folder_is_refused(make_config, tmp_path: Path):
    fit(make_config(validation=[], epochs=1, steps=1), tmp_path)
    with pytest.raises(InputError, match="expected a folder without a checkpoint, or --resume"):
        fit(make_config(), tmp_path)
    with pytest.raises(InputError, match="checkpoint: expected optimizer 'sgd', got 'adamw'"):
        fit(make_config(optimizer={"name": "sgd"}), tmp_path, resume=True)
    with pytest.raises(InputError, match="checkpoint: expected epochs 7, got 1"):
        fit(make_config(epochs=7, steps=1), tmp_path, resume=True)
    network = {"name": "lraspp_mobilenet_v3_large", "weights": "none", "labels": "ade20k32"}
    with pytest.raises(InputError, match="checkpoint: expected network 'lraspp_mobilenet_v3_large'"):
        fit(make_config(network=network), tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    make_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = make_config(validation=[], epochs=3, steps=1)
    real, steps = run_module.Loss.__call__, []

    def break_in_third_step(self, logits, targets):
        steps.append(1)
        return real(self, logits * (float("nan") if len(steps) == 3 else 1.0), targets)

    monkeypatch.setattr(run_module.Loss, "__call__", break_in_third_step)
    with pytest.raises(PerceptionError, match=r"not finite in step 3 \(cross_entropy nan\); the last good state is in"):
        fit(config, tmp_path)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["progress"]["step"] == 2
    monkeypatch.undo()
    assert fit(config, tmp_path, resume=True)["steps"] == 3


def test_a_gradient_that_is_not_finite_changes_no_weights(make_config, tmp_path: Path):
    config = make_config(validation=[], epochs=1, steps=1)
    run = run_module.TrainingRun(config, torch.device("cpu"), 1)
    run.loss = lambda logits, targets: {"cross_entropy": torch.sqrt((logits * 0).sum())}  # type: ignore[assignment]
    before = [value.clone() for value in run.network.parameters()]
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    batch = Batch(images, images[:, 0], torch.ones(1), torch.ones(1))
    with pytest.raises(run_module.NotFiniteError, match="the gradient is not finite in step 1"):
        run.step(batch)
    assert all(torch.equal(one, other) for one, other in zip(before, run.network.parameters(), strict=True))


def test_the_average_is_evaluated_as_soon_as_it_begins(make_config):
    config = make_config(average={"name": "swa", "start_epoch": 1}, validation=[])
    run = run_module.TrainingRun(config, torch.device("cpu"), 2)
    run.update_average(0)
    assert run.result is run.network
    run.update_average(1)
    assert run.average is not None and run.result is run.average.module


def test_patience_stops_a_run_that_gets_no_better(make_config, tmp_path: Path):
    config = make_config(optimizer={"rate": 0.0}, epochs=6, steps=1, patience=2)
    result = fit(config, tmp_path)
    assert len(result["epochs"]) == 3 and result["best_epoch"] == 0


def test_frozen_layers_do_not_change_and_a_new_head_learns_other_classes(make_config, tmp_path: Path, rooms: Path):
    mapping = {"labels": "voc21", "classes": {"wall": "background", "floor": "sofa", "bed": "chair"}, "default": None}
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump(mapping))
    config = make_config(
        network={"transfer": "head", "labels": "voc21"},
        train=[{"path": str(rooms), "labels": "ade20k32", "label_map": str(path)}],
        validation=[{"path": str(rooms), "labels": "ade20k32", "label_map": str(path)}],
        epochs=1,
    )
    result = fit(config, tmp_path / "run")
    (score,) = result["epochs"][0]["validation"].values()
    assert set(score["iou"]) == {"background", "chair", "sofa"}
    trained = load_arrays(tmp_path / "run" / "last.safetensors")
    start = load_arrays(Path(str(SOURCE / "perception/data/weights/deeplabv3plus_mobilenetv2_ade20k32.safetensors")))
    assert all(np.array_equal(trained[name], start[name]) for name in start if name.startswith(("stem", "blocks")))
    assert trained["classifier.weight"].shape[0] == 21


def test_photographs_alone_teach_nothing_to_a_network_that_is_its_own_teacher(make_config, tmp_path: Path, rooms: Path):
    loss = {"distillation": {"weight": 1.0}}
    config = make_config(
        train=[{"kind": "images", "path": str(rooms), "files": "*.color.png"}],
        optimizer={"weight_decay": 0.0}, validation=[], loss=loss, epochs=1, steps=1,
    )  # fmt: skip
    result = fit(config, tmp_path)
    assert result["epochs"][0]["losses"]["distillation"] == pytest.approx(0.0, abs=1e-6)
    assert result["epochs"][0]["losses"]["cross_entropy"] == 0.0


def test_a_random_network_cannot_teach_itself(make_config, tmp_path: Path):
    config = make_config(network={"weights": "none"}, loss={"distillation": {"weight": 1.0}})
    with pytest.raises(InputError, match="cannot teach itself"):
        fit(config, tmp_path)


def test_half_precision_on_a_cpu_is_bfloat16(make_config, tmp_path: Path):
    config = make_config(precision="bfloat16", validation=[], epochs=1, steps=1)
    assert np.isfinite(fit(config, tmp_path / "a")["epochs"][0]["loss"])
    with pytest.raises(InputError, match="expected float32 or bfloat16 on a CPU, got float16"):
        fit(make_config(precision="float16"), tmp_path / "b")


def test_a_mask_with_unknown_ids_stops_the_run_with_its_name(make_config, tmp_path: Path, rooms: Path):
    import shutil

    import cv2

    shutil.copytree(rooms, tmp_path / "bad")
    cv2.imwrite(str(tmp_path / "bad" / "frame-000003.segm.png"), np.full((48, 64), 99, np.uint8))
    with pytest.raises(InputError, match=r"frame-000003.color.png: has ids \[99\]"):
        fit(make_config(train=[{"path": str(tmp_path / "bad")}], steps=2, workers=1), tmp_path / "run")


def test_the_configuration_in_the_folder_is_read_back_as_it_was(make_config, tmp_path: Path):
    config = make_config(epochs=1, steps=1, validation=[], loss={"class_weights": {"bed": 2.0}})
    fit(config, tmp_path)
    assert plain(load_training_config(tmp_path / "config.yaml")) == plain(config)


def test_two_processes_learn_what_one_learns_from_the_whole_batch(make_config, tmp_path: Path):
    config = make_config(
        epochs=1,
        steps=3,
        optimizer={"name": "momentum", "rate": 0.01},
        loss={"dice": 0.5, "l2_sp": 0.01, "distillation": {"weight": 0.5, "min_confidence": 0.3}},
    )
    one = fit(config, tmp_path / "one")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain(config)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
    }
    command = [sys.executable, "-m", "perception", "train", "--config", str(path), "--output", str(tmp_path / "two")]
    ranks = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=280)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    assert two["epochs"][0]["losses"] == pytest.approx(one["epochs"][0]["losses"], rel=1e-4)
    assert two["best_score"] == pytest.approx(one["best_score"], abs=2e-3)
    first, second = (load_arrays(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, atol=2e-5, err_msg=name)


def test_a_batch_that_the_processes_cannot_share_is_refused():
    from perception.training.processes import Processes

    with pytest.raises(InputError, match="expected a multiple of 3 processes, got 4"):
        Processes(0, 3).part(range(4))
    assert [list(Processes(rank, 2).part(range(4))) for rank in range(2)] == [[0, 1], [2, 3]]


def test_the_example_configurations_are_valid():
    folder = SOURCE.parent / "config"
    for path in sorted(folder.glob("train_*.yaml")):
        config = load_training_config(path)
        assert config.train, path
        if config.augmentation.transforms:
            fit_module.Augmentation(config.augmentation)


def test_the_command_trains_and_prints_scores(make_config, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from perception.cli.main import main

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain(make_config(epochs=1, steps=1))))
    assert main(["train", "--config", str(path), "--output", str(tmp_path / "run"), "--set", "optimizer.rate=0"]) == 0
    assert "mIoU" in capsys.readouterr().out
    assert main(["train", "--config", str(path), "--set", "optimizer.speed=1", "--output", str(tmp_path / "x")]) == 1
    assert "optimizer.speed: unknown parameter" in capsys.readouterr().err

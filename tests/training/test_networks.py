# SPDX-License-Identifier: Apache-2.0
"""Networks under training: what learns, where labels lie, batch norm in and out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from perception.errors import InputError
from perception.models import create_segmenter, deeplab_layers
from perception.models.decoding import prepare
from perception.training.batch_norm import NormalizedConv, calibrate
from perception.training.config import NetworkConfig
from perception.training.networks import TrainableNetwork, load_start, open_network, parameter_groups, set_training


def learning(network: TrainableNetwork) -> set[str]:
    return {name.split(".")[0] for name, value in network.module.named_parameters() if value.requires_grad}


def random_images(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), np.uint8)
    return torch.from_numpy(values)


def test_the_network_under_training_gives_the_logits_of_the_segmenter():
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    segmenter = create_segmenter("deeplabv3plus_mobilenetv2", "cpu", backend="torch", input_size=(64, 96))
    network = open_network(NetworkConfig()).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert prepare(rgb, (64, 96), segmenter.spec).shape == (1, 3, 64, 96)
    np.testing.assert_allclose(logits, segmenter.logits(rgb), atol=1e-3)


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        ("all", {"stem", "blocks", "pyramid", "decoder", "classifier"}),
        ("last", {"classifier"}),
        ("head", {"pyramid", "decoder", "classifier"}),
    ],
)
def test_transfer_decides_which_layers_learn(transfer: str, expected: set[str]):
    config = NetworkConfig(transfer=transfer)
    network = open_network(config)
    parameter_groups(network, config, 0.0)
    assert learning(network) == expected


def test_a_new_head_may_have_other_classes_and_keeps_the_backbone():
    old = open_network(NetworkConfig())
    new = open_network(NetworkConfig(transfer="head", labels="voc21"))
    assert new.module.get_submodule("classifier").weight.shape[0] == 21
    assert torch.equal(new.module.get_submodule("stem").weight, old.module.get_submodule("stem").weight)
    assert not torch.equal(
        new.module.state_dict()["pyramid.point.weight"], old.module.state_dict()["pyramid.point.weight"]
    )


def test_weights_of_other_classes_are_refused_without_a_new_head():
    with pytest.raises(InputError, match=r"classifier.weight: expected shape \(21, 256, 1, 1\)"):
        open_network(NetworkConfig(labels="voc21"))


def test_rates_by_prefix_make_groups_and_zero_freezes():
    config = NetworkConfig(rates={"stem": 0.0, "blocks": 0.1, "blocks.16": 0.5})
    network = open_network(config)
    groups = parameter_groups(network, config, 0.01)
    by_name = {name: group for group in groups for name in group["names"]}
    assert "stem.weight" not in by_name
    assert by_name["blocks.3.expand.weight"]["rate_factor"] == 0.1
    assert by_name["blocks.16.expand.weight"]["rate_factor"] == 0.5
    assert by_name["classifier.weight"] == by_name["pyramid.point.weight"]
    assert by_name["classifier.weight"]["weight_decay"] == 0.01
    assert by_name["classifier.bias"]["weight_decay"] == 0.0


def test_rates_of_unknown_layers_are_refused():
    with pytest.raises(InputError, match="no parameters begin with \\['backbone'\\]; the network has"):
        parameter_groups(open_network(NetworkConfig()), NetworkConfig(rates={"backbone": 0.1}), 0.0)


def test_labels_at_logits_are_those_of_the_pixels_on_the_legacy_grid():
    network = open_network(NetworkConfig())
    labels = torch.arange(8 * 12, dtype=torch.uint8).view(1, 8, 12)
    assert torch.equal(network.labels_at_logits(labels, (2, 3)), labels[:, ::4, ::4])


def test_labels_at_logits_are_those_in_the_middle_of_cells_on_the_usual_grid():
    network = open_network(NetworkConfig(name="lraspp_mobilenet_v3_large", weights="none"))
    labels = torch.arange(8 * 12, dtype=torch.uint8).view(1, 8, 12)
    assert torch.equal(network.labels_at_logits(labels, (2, 3)), labels[:, 2::4, 2::4])


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_torchvision_networks_give_the_logits_of_torchvision(name: str):
    network = open_network(NetworkConfig(name=name, weights="none")).eval()
    images = random_images(1, 64, 64)
    with torch.no_grad():
        logits = network(images)
        expected = network.module((images.float() - network.mean) / network.std)["out"]
        torch.testing.assert_close(network.upsampled(logits, (64, 64)), expected)


def test_frozen_statistics_stay_and_others_move():
    for batch_norm, moves in (("frozen", False), ("keep", True)):
        config = NetworkConfig(name="lraspp_mobilenet_v3_large", weights="none", batch_norm=batch_norm)
        network = open_network(config)
        set_training(network, config)
        before = network.module.state_dict()["backbone.0.1.running_mean"].clone()
        network(random_images(2, 64, 64))
        assert torch.equal(before, network.module.state_dict()["backbone.0.1.running_mean"]) is not moves


def test_inserted_batch_norm_changes_nothing_before_training_and_folds_back():
    plain = open_network(NetworkConfig()).eval()
    network = open_network(NetworkConfig(batch_norm="insert")).eval()
    images = random_images()
    with torch.no_grad():
        expected = plain(images)
        torch.testing.assert_close(network(images), expected, atol=2e-3, rtol=1e-3)
        calibrate(network, [images])
        torch.testing.assert_close(network(images), expected, atol=2e-3, rtol=1e-3)
        # On the calibration images batch statistics are the stored ones, up to Bessel's correction.
        network.train()
        torch.testing.assert_close(network(images), expected, atol=2e-3, rtol=1e-3)
    arrays = network.arrays()
    assert {name: array.shape for name, array in arrays.items()} == deeplab_layers.tensor_shapes(32)


def test_trained_batch_norm_folds_into_a_network_that_does_the_same():
    network = open_network(NetworkConfig(batch_norm="insert"))
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, NormalizedConv):
            norm: nn.BatchNorm2d = layer.norm
            for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert value is not None
                value.data += 0.1 * torch.rand(value.shape, generator=generator)
    plain = open_network(NetworkConfig())
    load_start(plain, network.arrays(), new_head=False, what="folded")
    images = random_images()
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), network.eval()(images), atol=5e-3, rtol=1e-3)


def test_unknown_networks_are_refused():
    with pytest.raises(InputError, match=r"network\.name: expected one of"):
        open_network(NetworkConfig(name="unet"))
    with pytest.raises(InputError, match="insert is for networks without batch norm"):
        open_network(NetworkConfig(name="lraspp_mobilenet_v3_large", weights="none", batch_norm="insert"))

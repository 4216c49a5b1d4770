# SPDX-License-Identifier: Apache-2.0
import pytest
import yaml

from perception.config import PerceptionConfig, flatten, from_dict, load_config, nest, to_dict
from perception.errors import InputError


def test_defaults_of_the_sensor_model_are_octomap_servers():
    sensor = PerceptionConfig().octomap.sensor_model
    assert (sensor.hit, sensor.miss, sensor.min, sensor.max, sensor.max_range) == (0.7, 0.4, 0.12, 0.97, -1.0)


def test_file_and_overrides_are_laid_over_the_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("octomap:\n  resolution: 0.1\n  sensor_model: {hit: 0.8}\n")
    config = load_config(path, ["octomap.resolution=0.02", "segmentation.model=none"])
    assert config.octomap.resolution == 0.02
    assert config.octomap.sensor_model.hit == 0.8
    assert config.octomap.sensor_model.miss == 0.4
    assert config.segmentation.model == "none"


def test_a_misspelt_parameter_is_an_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"octomap\.resolutoin: unknown parameter.*'resolution'"):
        load_config(None, ["octomap.resolutoin=0.1"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("octomap.resolution=0", "resolution: expected 0.001 to 10.0, got 0"),
        ("octomap.resolution=fine", "expected a number, got 'fine'"),
        ("octomap.resolution=.nan", "NaN"),
        ("cloud.stride=1.5", "expected a int, got 1.5"),
        ("cloud.stride=true", "got True"),
        ("cloud.clear_zero=1", "expected a bool, got 1"),
        ("segmentation.backend=tpu", r"expected one of \['auto', 'torch', 'onnxruntime', 'openvino'\], got 'tpu'"),
        ("octomap.sensor_model=3", "expected a mapping"),
        ("octomap.sensor_model.hit=0.2", "hit: expected 0.5"),
        ("nothing", "expected group.name=value"),
    ],
)
def test_wrong_values_say_what_was_expected(setting, message):
    with pytest.raises(InputError, match=message):
        load_config(None, [setting])


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="expected a mapping, got list"):
        load_config(path)


def test_written_config_reads_back_equal():
    config = load_config(None, ["costs={floor: 3}", "cloud.max_range=4"])
    assert from_dict(PerceptionConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


def test_every_parameter_has_a_description_and_a_default_within_its_bounds():
    parameters = flatten(PerceptionConfig)
    assert "octomap.sensor_model.max_range" in parameters
    for name, (_, metadata) in parameters.items():
        assert metadata["description"], name
    from_dict(PerceptionConfig, nest({name: default for name, (default, _) in parameters.items()}))

# SPDX-License-Identifier: Apache-2.0
"""Whatever a YAML file holds, reading it ends in its content or in one sentence."""

import pytest
import yaml

from perception.config import load_config
from perception.costmap.files import read_costmap
from perception.errors import InputError
from perception.labels import LabelSet
from perception.simulation.class_map import ClassMap
from perception.sources.description import load_description
from perception.sources.trajectory import read_extrinsics
from perception.sweep import Plan
from perception.yaml_text import load_yaml

HOSTILE = {
    "nesting": "[" * 10_000,
    "date": "day: 2020-13-45",
    "tag": "!!python/object/apply:os.getcwd []",
    "open": "{",
    "no number": "a: !!float ''",
    "no truth value": "a: !!bool foo",
    "no time": "a: !!timestamp foo",
    "no text": "a: !!timestamp {=: 1}",
    "too great": "a: 1" + ":1" * 200 + ".5",
}


def test_what_is_yaml_is_read():
    assert load_yaml("{a: [1, 2.5, x], b: 2020-12-05}")["a"] == [1, 2.5, "x"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_all_that_may_be_wrong_is_one_error(text):
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "read", [load_config, LabelSet.load, ClassMap.load, load_description, read_extrinsics, Plan.load, read_costmap]
)
def test_every_reader_of_yaml_tells_it_in_one_sentence(read, text, tmp_path):
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(InputError, match=r"file\.yaml") as caught:
        read(tmp_path / "file.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["[" * 10_000, "2020-13-45", "!!int _", "!!bool foo"])
def test_values_on_the_command_line_do_too(value):
    with pytest.raises(InputError, match="is not YAML"):
        load_config(None, [f"octomap.resolution={value}"])

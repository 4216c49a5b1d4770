# SPDX-License-Identifier: Apache-2.0
"""Which recordings a path means."""

import pytest

from perception.errors import InputError
from perception.evaluation.recordings import find_recordings
from perception.sources import open_source


def made(folder, *names):
    """A folder with empty files of these names below it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_recording_is_itself(tmp_path):
    bag = made(tmp_path / "bag", "metadata.yaml", "inside/metadata.yaml")
    frames = made(tmp_path / "frames", "frame-000000.color.png")
    described = made(tmp_path / "described", "dataset.yaml")
    for path in (bag, frames, described, bag / "metadata.yaml", tmp_path / "absent"):
        assert find_recordings(path) == [path]


def test_a_folder_of_recordings_is_those_in_it_by_name(tmp_path):
    made(tmp_path, "drive2/metadata.yaml", "drive1/one.mcap", "old.bag", "scene/frame-000001.color.jpg", "notes.txt")
    made(tmp_path, ".cache/metadata.yaml", "tum/rgb/1.png", "tum/depth/1.png", "empty/readme", "deep/er/metadata.yaml")
    assert [path.name for path in find_recordings(tmp_path)] == ["drive1", "drive2", "old.bag", "scene", "tum"]
    assert find_recordings(tmp_path, described=True) == [tmp_path]


def test_a_folder_without_recordings_is_left_to_whoever_opens_it(tmp_path):
    assert find_recordings(made(tmp_path / "photos", "a.jpg")) == [tmp_path / "photos"]


@pytest.mark.parametrize(
    "names",
    [
        ["office_2024.mcap", "office_2025.mcap"],
        ["run_1.mcap", "run_2.mcap"],
        ["run_0.mcap", "run_2.mcap"],
        ["run_00.mcap", "run_01.mcap"],
        ["run_0.db3", "run_0.mcap"],
        ["hall_0.mcap", "kitchen_1.mcap"],
        ["run.mcap", "run_0.mcap"],
    ],
)
def test_numbers_that_no_split_bag_has_tell_recordings_apart(tmp_path, names):
    assert [path.name for path in find_recordings(made(tmp_path, *names))] == names
    with pytest.raises(InputError, match=f"expected one bag, or its parts NAME_0, NAME_1 …, got {names[0]}"):
        open_source(tmp_path)


def test_a_file_on_its_own_is_a_bag_whatever_its_number(tmp_path):
    assert find_recordings(made(tmp_path, "office_2024.mcap")) == [tmp_path]


def test_storage_files_of_one_folder_are_parts_of_a_bag_or_recordings_by_their_names(tmp_path):
    parts = made(tmp_path / "parts", *(f"drive_{number}.mcap" for number in range(11)))
    loose = made(tmp_path / "loose", "hall.mcap", "kitchen.db3", "kitchen_1.db3", "old.bag")
    known = made(tmp_path / "known", "metadata.yaml", "a.mcap", "b.mcap")
    assert find_recordings(parts) == [parts] and find_recordings(known) == [known]
    names = ["hall.mcap", "kitchen.db3", "kitchen_1.db3", "old.bag"]
    assert [path.name for path in find_recordings(loose)] == names

# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk: what is found, how ids become classes, what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import InputError
from perception.labels import LabelSet
from perception.training.config import DataConfig
from perception.training.datasets import IGNORED, open_data

sys.path.insert(0, str(Path(__file__).parent))
from training_rooms import write_room, write_yaml

ADE = LabelSet.load("ade20k32")


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def gray(height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_frames_give_images_and_masks_with_255_for_no_label(rooms: Path):
    data = open_data(DataConfig(path=str(rooms)), ADE)
    image, mask = data.read(0)
    assert len(data) == 8 and image.shape == (48, 64, 3) and mask.shape == (48, 64)
    assert set(np.unique(mask)) == {1, 4, 8, IGNORED}
    assert mask[0, 0] == IGNORED
    # Red and blue are not exchanged: beds are blue.
    assert image[mask == 8].mean(0)[2] > 140 > 60 > image[mask == 8].mean(0)[0]


def test_a_pattern_joins_folders_and_a_limit_spreads_evenly(tmp_path: Path):
    for name in ("house-1", "house-2"):
        (tmp_path / name).mkdir()
        for number in range(3):
            write_room(tmp_path / name / f"frame-{number:06d}", number)
    data = open_data(DataConfig(path=str(tmp_path / "house-*")), ADE)
    assert len(data) == 6
    limited = open_data(DataConfig(path=str(tmp_path / "house-*"), limit=2), ADE)
    assert [item.image.parent.name for item in limited.items] == ["house-1", "house-2"]


def test_classes_are_taken_over_by_name_where_ids_differ(tmp_path: Path):
    write_yaml(
        tmp_path / "labels.yaml", {"name": "own", "classes": [{"id": 3, "name": "bed"}, {"id": 7, "name": "wall"}]}
    )
    save(tmp_path / "frame-000000.color.png", gray(1, 3))
    save(tmp_path / "frame-000000.segm.png", np.array([[3, 7, 255]], np.uint8))
    mask = open_data(DataConfig(path=str(tmp_path)), ADE).read(0)[1]
    assert mask.tolist() == [[8, 1, 255]]


def test_classes_that_the_network_lacks_need_a_label_map(tmp_path: Path):
    classes = [{"id": 0, "name": "bunk"}, {"id": 1, "name": "wall"}, {"id": 2, "name": "smoke"}]
    write_yaml(tmp_path / "labels.yaml", {"name": "own", "classes": classes})
    save(tmp_path / "frame-000000.color.png", gray(1, 3))
    save(tmp_path / "frame-000000.segm.png", np.array([[0, 1, 2]], np.uint8))
    with pytest.raises(InputError, match=r"has no classes \['bunk', 'smoke'\]"):
        open_data(DataConfig(path=str(tmp_path)), ADE)
    mapping = {"labels": "ade20k32", "classes": {"bunk": "bed", "wall": "wall"}, "ignore": ["smoke"]}
    path = write_yaml(tmp_path / "map.yaml", mapping)
    mask = open_data(DataConfig(path=str(tmp_path), label_map=str(path)), ADE).read(0)[1]
    assert mask.tolist() == [[8, 1, 255]]
    unlabeled = open_data(DataConfig(path=str(tmp_path), unlabeled=[0, 2]), ADE)
    assert unlabeled.read(0)[1].tolist() == [[255, 1, 255]]


def test_unknown_ids_of_a_mask_are_named(tmp_path: Path):
    save(tmp_path / "frame-000000.color.png", gray(1, 3))
    save(tmp_path / "frame-000000.segm.png", np.array([[1, 77, 200]], np.uint8))
    with pytest.raises(InputError, match=r"frame-000000.color.png: has ids \[77, 200\] that the label set of"):
        open_data(DataConfig(path=str(tmp_path)), ADE).read(0)


def test_a_mask_of_another_size_or_with_colors_is_refused(tmp_path: Path):
    save(tmp_path / "frame-000000.color.png", gray(4, 6))
    save(tmp_path / "frame-000000.segm.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"expected \(4, 6\) as the image, got \(4, 5\)"):
        open_data(DataConfig(path=str(tmp_path)), ADE).read(0)
    save(tmp_path / "frame-000000.segm.png", gray(4, 6))
    with pytest.raises(InputError, match="expected a mask of one channel"):
        open_data(DataConfig(path=str(tmp_path)), ADE).read(0)


def test_empty_missing_and_maskless_folders_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="expected a folder, found none"):
        open_data(DataConfig(path=str(tmp_path / "none")), ADE)
    with pytest.raises(InputError, match="expected images in"):
        open_data(DataConfig(path=str(tmp_path)), ADE)
    save(tmp_path / "frame-000000.color.png", gray())
    with pytest.raises(InputError, match=r"expected its mask frame-000000\.segm\.png"):
        open_data(DataConfig(path=str(tmp_path)), ADE)


def test_a_truncated_image_is_named(tmp_path: Path):
    write_room(tmp_path / "frame-000000", 0)
    path = tmp_path / "frame-000000.color.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"frame-000000\.color\.png"):
        open_data(DataConfig(path=str(tmp_path)), ADE).read(0)


def test_photographs_have_no_labels_and_masks_beside_them_are_no_photographs(tmp_path: Path):
    save(tmp_path / "a.jpg", gray())
    save(tmp_path / "deeper" / "frame-000000.color.png", gray())
    save(tmp_path / "deeper" / "frame-000000.depth.png", np.zeros((4, 6), np.uint16))
    data = open_data(DataConfig(kind="images", path=str(tmp_path)), ADE)
    assert [item.image.name for item in data.items] == ["a.jpg", "frame-000000.color.png"]
    assert (data.read(0)[1] == IGNORED).all()


def test_masks_lie_beside_images_or_in_a_folder_of_their_own(tmp_path: Path):
    save(tmp_path / "images" / "a.jpg", gray())
    save(tmp_path / "masks" / "a.png", np.full((4, 6), 4, np.uint8))
    config = DataConfig(kind="masks", path=str(tmp_path / "images"), masks=str(tmp_path / "masks"))
    assert (open_data(config, ADE).read(0)[1] == 4).all()
    for name in ("x.jpg", "y.png"):
        save(tmp_path / "beside" / name, gray())
    save(tmp_path / "beside" / "x.png", np.full((4, 6), 1, np.uint8))
    save(tmp_path / "beside" / "y_mask.png", np.full((4, 6), 8, np.uint8))
    data = open_data(DataConfig(kind="masks", path=str(tmp_path / "beside")), ADE)
    assert [(item.image.name, int(data.read(i)[1][0, 0])) for i, item in enumerate(data.items)] == [
        ("x.jpg", 1),
        ("y.png", 8),
    ]


def test_pascal_voc_masks_are_the_indices_of_their_palette(tmp_path: Path):
    from PIL import Image

    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n")
    save(tmp_path / "JPEGImages" / "2007_000033.jpg", gray(1, 4))
    (tmp_path / "SegmentationClass").mkdir()
    mask = Image.fromarray(np.array([[0, 15, 20, 255]], np.uint8), mode="P")
    mask.putpalette([value % 256 for value in range(0, 768 * 3, 3)])
    mask.save(tmp_path / "SegmentationClass" / "2007_000033.png")
    voc = LabelSet.load("voc21")
    data = open_data(DataConfig(kind="voc", path=str(tmp_path), split="val"), voc)
    assert data.read(0)[1].tolist() == [[0, 15, 20, 255]]
    with pytest.raises(InputError, match=r"train\.txt: cannot be read"):
        open_data(DataConfig(kind="voc", path=str(tmp_path)), voc)


def coco_folder(folder: Path) -> Path:
    save(folder / "images" / "one.jpg", gray(10, 10))
    save(folder / "images" / "empty.jpg", gray(10, 10))
    big = {"segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]], "area": 100, "category_id": 65}
    small = {"segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]], "area": 16, "category_id": 62}
    crowd = {"segmentation": {"size": [10, 10], "counts": [90, 10]}, "area": 10, "category_id": 62, "iscrowd": 1}
    annotations = [
        {"id": i, "image_id": 5, "iscrowd": 0, "bbox": [0, 0, 10, 10], **entry}
        for i, entry in enumerate((small, big, crowd), 1)
    ]
    content = {
        "images": [
            {"id": 5, "file_name": "one.jpg", "height": 10, "width": 10},
            {"id": 6, "file_name": "empty.jpg", "height": 10, "width": 10},
        ],
        "categories": [{"id": 62, "name": "chair"}, {"id": 65, "name": "bed"}],
        "annotations": annotations,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def test_coco_objects_are_painted_small_over_large_and_crowds_have_no_label(tmp_path: Path):
    pytest.importorskip("pycocotools")
    config = DataConfig(
        kind="coco", path=str(coco_folder(tmp_path)), annotations="instances.json", images="images", unlabeled=[0]
    )
    data = open_data(config, ADE)
    assert len(data) == 1
    mask = data.read(0)[1]
    chair, bed = ADE["chair"].id, ADE["bed"].id
    assert mask[3, 3] == chair and mask[7, 7] == bed and mask[0, 0] == bed
    assert (mask[:, 9] == IGNORED).all()
    assert np.count_nonzero(mask == chair) == 16


def test_broken_coco_annotations_are_refused(tmp_path: Path):
    pytest.importorskip("pycocotools")
    coco_folder(tmp_path)
    (tmp_path / "instances.json").write_text("{]")
    with pytest.raises(InputError, match="expected COCO annotations"):
        open_data(DataConfig(kind="coco", path=str(tmp_path), annotations="instances.json"), ADE)
    (tmp_path / "instances.json").write_text(
        '{"images": [{"id": 1, "file_name": "../x"}], "categories": [{"id": 1, "name": "a"}]}'
    )
    with pytest.raises(InputError, match="expected names of files below"):
        open_data(DataConfig(kind="coco", path=str(tmp_path), annotations="instances.json"), ADE)

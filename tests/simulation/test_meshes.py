# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from perception.errors import InputError
from perception.simulation.meshes import decode_texture, load_model, parse_model

pytest.importorskip("trimesh", reason="needs perception[simulation]")
pytest.importorskip("collada", reason="needs perception[simulation]")

OBJ = """mtllib m.mtl
v 0 0 0
v 2 0 0
v 2 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl painted
f 1/1 2/2 3/3 4/4
usemtl glass
f 1/1 2/2 3/3
"""
MTL = "newmtl painted\nKd 1 1 1\nmap_Kd t.png\nnewmtl glass\nKd 0.2 0.4 0.6\nd 0.3\n"
DAE = """<?xml version="1.0"?>
<COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">
 <asset><unit meter="0.01" name="centimeter"/><up_axis>{up}</up_axis></asset>
 <library_geometries><geometry id="g"><mesh>
  <source id="p"><float_array id="pa" count="9">0 0 0 100 0 0 0 100 0</float_array><technique_common>
   <accessor source="#pa" count="3" stride="3"><param name="X" type="float"/><param name="Y" type="float"/>
   <param name="Z" type="float"/></accessor></technique_common></source>
  <vertices id="v"><input semantic="POSITION" source="#p"/></vertices>
  <triangles count="1"><input semantic="VERTEX" source="#v" offset="0"/><p>0 1 2</p></triangles>
 </mesh></geometry></library_geometries>
 <library_visual_scenes><visual_scene id="s"><node id="n"><translate>0 0 50</translate>
  <instance_geometry url="#g"/></node></visual_scene></library_visual_scenes>
 <scene><instance_visual_scene url="#s"/></scene>
</COLLADA>"""


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_obj_gives_a_part_per_material_with_texture_and_opacity(tmp_path: Path):
    picture = np.zeros((2, 1, 3), np.uint8)
    picture[0, 0] = (255, 0, 0)
    (tmp_path / "m.obj").write_text(OBJ)
    (tmp_path / "m.mtl").write_text(MTL)
    (tmp_path / "t.png").write_bytes(png(picture))
    model = load_model(tmp_path / "m.obj")
    textured = next(part for part in model.parts if part.material.texture is not None)
    glass = next(part for part in model.parts if part.material.texture is None)
    assert len(textured.faces) == 2 and len(glass.faces) == 1
    # Textures are stored lowest row first: red was the upper one.
    assert textured.material.texture[:, 0].tolist() == [[0, 0, 0, 255], [255, 0, 0, 255]]
    assert glass.material.transparent and glass.material.color == pytest.approx((0.2, 0.4, 0.6, 0.3), abs=0.01)
    assert np.abs(textured.normals[:, 2]) == pytest.approx(1.0)
    upper = textured.vertices[:, 1] > 0.5
    assert (textured.uv[upper, 1] == 1).all() and (textured.uv[~upper, 1] == 0).all()
    assert model.bounds.tolist() == [[0, 0, 0], [2, 1, 0]]


def test_collada_units_axes_and_node_transforms_are_applied():
    def nothing(name: str) -> bytes:
        raise KeyError(name)

    upright = parse_model(DAE.format(up="Z_UP").encode(), "m.dae", nothing)
    assert upright.bounds == pytest.approx(np.array([[0, 0, 0.5], [1, 1, 0.5]]))
    # y up: the file's y becomes z, its z becomes −y.
    turned = parse_model(DAE.format(up="Y_UP").encode(), "m.dae", nothing)
    assert turned.bounds == pytest.approx(np.array([[0, -0.5, 0], [1, -0.5, 1]]))
    assert np.abs(turned.parts[0].normals) == pytest.approx(np.tile((0, 1, 0), (3, 1)), abs=1e-6)


def test_a_texture_that_is_missing_is_left_away_with_a_warning(tmp_path: Path, caplog):
    (tmp_path / "m.obj").write_text(OBJ)
    (tmp_path / "m.mtl").write_text(MTL)
    model = load_model(tmp_path / "m.obj")
    assert model.triangles == 3 and "t.png" in caplog.text
    assert all(part.material.texture is None for part in model.parts)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.dae", b"not xml", "cannot be read"),
        ("m.obj", b"", "m.obj"),
        ("m.blend", b"", "expected .dae or one of"),
        ("m.obj", b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", "m.obj|finite"),
        ("m.obj", b"v 0 0 0\nf 1 2 3\n", "m.obj"),
    ],
)
def test_broken_models_are_refused(name: str, data: bytes, message: str):
    def nothing(file: str) -> bytes:
        raise KeyError(file)

    with pytest.raises(InputError, match=message):
        parse_model(data, name, nothing)


def test_a_missing_file_and_a_broken_picture_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "none.obj")
    with pytest.raises(InputError, match="texture"):
        decode_texture(b"no picture")


def test_large_textures_are_shrunk():
    assert decode_texture(png(np.zeros((512, 4096, 3), np.uint8))).shape == (128, 1024, 4)


@pytest.mark.parametrize("kind", ["stl", "ply", "glb"])
def test_other_formats_of_trimesh_are_read(kind: str):
    import trimesh

    data = trimesh.creation.box((1, 2, 3)).export(file_type=kind)
    model = parse_model(data, f"m.{kind}", lambda name: b"")
    assert model.triangles == 12 and model.bounds == pytest.approx(np.array([[-0.5, -1, -1.5], [0.5, 1, 1.5]]))

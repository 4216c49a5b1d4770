# SPDX-License-Identifier: Apache-2.0
"""Read textured models: COLLADA through pycollada, OBJ and the other formats that trimesh knows."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.simulation.requirements import require
from perception.simulation.scene import Material, Model, Part

MAX_TEXTURE = 1024
"""Larger textures are shrunk to this many pixels along their longer edge."""
MAX_FILE_BYTES = 1 << 28
TRIMESH_SUFFIXES = (".obj", ".stl", ".ply", ".glb")
ReadFile = Callable[[str], bytes]
"""Bytes of a file by its name relative to the model's; raises KeyError or OSError where there is none."""

log = logging.getLogger(__name__)


def load_model(path: str | Path) -> Model:
    """Read a model file, its textures beside it; meters, z as in the file.

    Raises:
        InputError: missing, unreadable, of an unknown format, or without triangles.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"mesh {path}: no such file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"mesh {path}: expected at most {MAX_FILE_BYTES >> 20} MiB")
    return parse_model(path.read_bytes(), path.name, lambda name: (path.parent / name).read_bytes())


def parse_model(data: bytes, name: str, read_file: ReadFile) -> Model:
    """A model from the bytes of its file.

    Args:
        data: the file.
        name: its name; the suffix tells the format.
        read_file: gives the files that it refers to.

    Raises:
        InputError: unreadable, of an unknown format, or without triangles.
    """
    suffix = Path(name).suffix.lower()
    if suffix != ".dae" and suffix not in TRIMESH_SUFFIXES:
        raise InputError(f"mesh {name}: expected .dae or one of {list(TRIMESH_SUFFIXES)}, got {suffix!r}")
    try:
        parts = _collada_parts(data, read_file) if suffix == ".dae" else _trimesh_parts(data, suffix[1:], read_file)
    except (ImportError, InputError):
        raise
    except Exception as error:
        # Parsers of untrusted files raise anything: KeyError, struct.error, xml's own …
        raise InputError(f"mesh {name}: cannot be read ({type(error).__name__}: {error})") from error
    if not parts:
        raise InputError(f"mesh {name}: expected triangles, got none")
    return Model(Path(name).stem, tuple(parts))


def decode_texture(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 4) uint8 RGBA of an image file, lowest row first, at most :data:`MAX_TEXTURE` pixels wide or high.

    Raises:
        InputError: not an image.
    """
    image = require("PIL.Image")
    try:
        picture = image.open(io.BytesIO(data))
        picture.thumbnail((MAX_TEXTURE, MAX_TEXTURE))
        return np.ascontiguousarray(np.asarray(picture.convert("RGBA"))[::-1])
    except Exception as error:
        raise InputError(f"texture: cannot be read ({error})") from error


class _Textures:
    """Textures by name, each decoded once; one that cannot be read is reported and left away."""

    def __init__(self, read_file: ReadFile) -> None:
        self._read_file = read_file
        self._known: dict[str, NDArray[np.uint8] | None] = {}

    def get(self, name: str) -> NDArray[np.uint8] | None:
        if name not in self._known:
            try:
                self._known[name] = decode_texture(self._read_file(name))
            except (OSError, KeyError, InputError) as error:
                log.warning("texture %s left away: %s", name, error)
                self._known[name] = None
        return self._known[name]


def _collada_parts(data: bytes, read_file: ReadFile) -> list[Part]:
    collada = require("collada")
    # What is broken beside the geometry (lights, controllers) does not matter here.
    document = collada.Collada(io.BytesIO(data), ignore=[collada.common.DaeError])
    textures = _Textures(read_file)
    scale = float(document.assetInfo.unitmeter or 1.0)
    upright = np.eye(4)
    if document.assetInfo.upaxis == collada.asset.UP_AXIS.Y_UP:
        upright[:3, :3] = ((1, 0, 0), (0, 0, -1), (0, 1, 0))
    upright[:3, :3] *= scale
    parts = []
    for geometry in document.scene.objects("geometry") if document.scene else ():
        for primitive in geometry.primitives():
            part = _collada_part(primitive, textures)
            if part is not None:
                parts.append(part.transformed(upright))
    return parts


def _collada_part(primitive: Any, textures: _Textures) -> Part | None:
    """One primitive, placed in the scene; None when it is not made of triangles (lines)."""
    name = type(primitive).__name__
    if name in ("BoundPolylist", "BoundPolygons"):
        primitive = primitive.triangleset()
    elif name != "BoundTriangleSet":
        return None
    if len(primitive) == 0:
        return None
    corners = np.asarray(primitive.vertex)[primitive.vertex_index].reshape(-1, 3)
    normals = None
    if primitive.normal is not None and primitive.normal_index is not None:
        normals = np.asarray(primitive.normal)[primitive.normal_index].reshape(-1, 3)
    uv = None
    if primitive.texcoordset:
        uv = np.asarray(primitive.texcoordset[0])[primitive.texcoord_indexset[0]].reshape(
            -1, np.shape(primitive.texcoordset[0])[1]
        )[:, :2]
    return _part(corners, normals, uv, _collada_material(primitive.material, textures))


def _collada_material(material: Any, textures: _Textures) -> Material:
    effect = getattr(material, "effect", None)
    diffuse = getattr(effect, "diffuse", None)
    if diffuse is None:
        return Material()
    if hasattr(diffuse, "sampler"):
        return Material((1.0, 1.0, 1.0, 1.0), textures.get(diffuse.sampler.surface.image.path))
    red, green, blue = (float(min(max(channel, 0.0), 1.0)) for channel in tuple(diffuse)[:3])
    return Material((red, green, blue, 1.0))


def _trimesh_parts(data: bytes, kind: str, read_file: ReadFile) -> list[Part]:
    trimesh = require("trimesh")

    class Resolver(trimesh.resolvers.Resolver):
        def __init__(self) -> None:
            pass

        def get(self, name: str) -> bytes:
            try:
                return read_file(name.strip().replace("\\", "/"))
            except (OSError, KeyError) as error:
                log.warning("file %s of a mesh left away: %s", name, error)
                raise

        def write(self, name: str, data: bytes) -> None:
            raise OSError("read only")

        def namespaced(self, namespace: str) -> Any:
            raise OSError("no folders")

        def keys(self) -> list[str]:
            return []

    options = {"group_material": True} if kind == "obj" else {}
    loaded = trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=Resolver(), process=False, **options)
    parts = []
    shared: dict[int, NDArray[np.uint8]] = {}
    for node in loaded.graph.nodes_geometry:
        matrix, name = loaded.graph[node]
        mesh = loaded.geometry[name]
        if not hasattr(mesh, "faces") or len(mesh.faces) == 0:
            continue
        uv = getattr(mesh.visual, "uv", None)
        corners = np.asarray(mesh.vertices)[mesh.faces].reshape(-1, 3)
        normals = np.asarray(mesh.vertex_normals)[mesh.faces].reshape(-1, 3)
        corner_uv = None if uv is None or len(uv) != len(mesh.vertices) else np.asarray(uv)[mesh.faces].reshape(-1, 2)
        parts.append(_part(corners, normals, corner_uv, _trimesh_material(mesh.visual, shared)).transformed(matrix))
    return parts


def _trimesh_material(visual: Any, shared: dict[int, NDArray[np.uint8]]) -> Material:
    material = getattr(visual, "material", None)
    if material is None:
        color = np.asarray(getattr(visual, "main_color", (204, 204, 204, 255))) / 255.0
        return Material(tuple(color.tolist()))
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    diffuse = getattr(material, "diffuse", None)
    if diffuse is None:
        diffuse = getattr(material, "baseColorFactor", None)
    color = np.ones(4) if diffuse is None else np.asarray(diffuse, np.float64) / 255.0
    opacity = getattr(material, "kwargs", {}).get("d")
    if opacity:
        color[3] = min(max(float(np.ravel(opacity)[0]), 0.0), 1.0)
    if image is None:
        return Material(tuple(color.tolist()))
    if id(image) not in shared:
        copy = image.convert("RGBA")
        copy.thumbnail((MAX_TEXTURE, MAX_TEXTURE))
        shared[id(image)] = np.ascontiguousarray(np.asarray(copy)[::-1])
    return Material((1.0, 1.0, 1.0, float(color[3])), shared[id(image)])


def _part(corners: NDArray[Any], normals: NDArray[Any] | None, uv: NDArray[Any] | None, material: Material) -> Part:
    """A part from the corners (3·T, …) of its triangles; missing normals are the faces' own."""
    corners = np.asarray(corners, np.float32)
    if not np.isfinite(corners).all():
        raise InputError("mesh: expected finite coordinates, got NaN or infinity")
    triangles = corners.reshape(-1, 3, 3)
    flat = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    flat = np.repeat(flat, 3, axis=0).astype(np.float32)
    if normals is None:
        normals = flat
    else:
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = np.where(np.isfinite(length) & (length > 1e-6), normals / np.maximum(length, 1e-12), flat)
    uv = np.zeros((len(corners), 2)) if uv is None else np.nan_to_num(uv)
    attributes = np.hstack([corners, normals, uv]).astype(np.float32)
    rows = np.ascontiguousarray(attributes).view([("", np.float32)] * 8).ravel()
    _, first, faces = np.unique(rows, return_index=True, return_inverse=True)
    kept = attributes[first]
    faces = faces.reshape(-1, 3).astype(np.int32)
    return Part(kept[:, :3].copy(), kept[:, 3:6].copy(), kept[:, 6:].copy(), faces, material)

# SPDX-License-Identifier: Apache-2.0
"""``perception score``: how well networks label a scene with known truth, and whether they agree on photographs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import parse_size
from perception.errors import InputError

if TYPE_CHECKING:
    from perception.evaluation.photographs import Agreement
    from perception.evaluation.scene_views import ViewScore
    from perception.models.base import Segmenter
    from perception.simulation.renderer import View
    from perception.simulation.scene import Scene

DEFAULT_MODELS = ("deeplabv3plus_mobilenetv2", "default")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "score",
        help="score networks on a scene with known truth and on photographs",
        description="Label views of a scene (per-class IoU, pixel accuracy, confusion pictures), and count on how many "
        "pixels of photographs the networks say the same as the first of them.",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME[@WEIGHTS]",
        help="network by name, model folder or .onnx file, with other weights after an @; may be repeated "
        f"(default: {' and '.join(DEFAULT_MODELS)}, that is the network before and after fine-tuning)",
    )
    parser.add_argument("--input-size", metavar="WIDTHxHEIGHT", help="of the networks (default: their own)")
    parser.add_argument("--scene", help="an SDF world (.world, .sdf), or house (furnished, from --seed)")
    parser.add_argument("--classes", default="aws_small_house", help="class map of a world (default: %(default)s)")
    parser.add_argument("--views", default="aws_small_house_views", help="list of views (default: %(default)s)")
    parser.add_argument("--random-views", type=int, metavar="N", help="in place of a list: N chosen by --seed")
    parser.add_argument("--seed", type=int, default=0, help="of the random views, and of a house")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="photographs to agree on")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for score.json and the confusion pictures")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Score, print the tables, write the files."""
    if not arguments.scene and not arguments.photos:
        raise InputError("score: expected --scene, --photos or both")
    names = arguments.model or list(DEFAULT_MODELS)
    if len(set(names)) != len(names):
        raise InputError(f"--model: expected different networks, got {names}")
    networks = {name: _network(name, arguments.input_size) for name in names}
    result: dict[str, Any] = {"input_size": arguments.input_size or "default"}
    if arguments.scene:
        result["scene"] = _score_scene(arguments, networks)
    if arguments.photos:
        result["photographs"] = _score_photographs(arguments.photos, networks)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2) + "\n"
        (arguments.output / "score.json").write_text(text, encoding="utf-8")
        print(f"written: {arguments.output}/")
    return 0


def _network(name: str, size: str | None) -> Segmenter:
    from perception.models import create_segmenter

    network, _, weights = name.partition("@")
    input_size = None if size is None else parse_size(size, "--input-size")
    return create_segmenter(network, weights=weights, input_size=input_size)


def _score_scene(arguments: argparse.Namespace, networks: dict[str, Segmenter]) -> dict[str, Any]:
    from perception.evaluation.scene_views import score_rendered

    scene, views = _rendered(arguments)
    scores = {}
    for name, network in networks.items():
        scores[name] = score_rendered(
            views, scene.label_set, lambda image, n=network: n(image).labels, network.label_set
        )
        print(f"{name}: {len(views)} views of {scene.name} done", flush=True)
    print(scene_table(scores))
    empty = _views_without_truth(views, scene)
    if empty:
        print(f"views without a scored pixel: {', '.join(map(str, empty))} of {len(views)}")
    if arguments.output:
        _write_pictures(arguments.output, scores, scene.name)
    return {
        "name": scene.name,
        "views": len(views),
        "views_without_truth": empty,
        "true_pixels": next(iter(scores.values())).true_pixels,
        "networks": {
            name: {
                "mean_iou": score.mean_iou,
                "pixel_accuracy": score.pixel_accuracy,
                "iou": score.iou,
                "confusion": score.confusion.counts.tolist(),
            }
            for name, score in scores.items()
        },
    }


def _rendered(arguments: argparse.Namespace) -> tuple[Scene, list[View]]:
    """The scene and what its views show."""
    from perception.simulation.renderer import Renderer
    from perception.simulation.views import choose_views, load_views, render_views

    scene = _scene(arguments)
    with Renderer(scene) as renderer:
        if arguments.random_views is None:
            points = load_views(arguments.views)
        else:
            points = choose_views(renderer, arguments.random_views, arguments.seed)
        return scene, list(render_views(renderer, points))


def _scene(arguments: argparse.Namespace) -> Scene:
    if arguments.scene == "house":
        from perception.simulation.houses import generate_house

        if arguments.random_views is None:
            raise InputError("--scene house: expected --random-views, as no list of views is made for it")
        return generate_house(arguments.seed, people=False).scene
    from perception.simulation.class_map import ClassMap
    from perception.simulation.sdf import load_world

    return load_world(arguments.scene, ClassMap.load(arguments.classes))


def scene_table(scores: dict[str, ViewScore]) -> str:
    """IoU of each class, their mean and the pixel accuracy of each network, as a Markdown table.

    A footnote names the classes that the views do not show.
    """
    pixels = next(iter(scores.values())).true_pixels
    absent = [name for name, count in pixels.items() if not count]
    rows = [["class", *scores], ["---"] * (len(scores) + 1)]
    rows += [
        [name + "*" * (name in absent), *(f"{score.iou[name]:.3f}" for score in scores.values())] for name in pixels
    ]
    rows.append(["mean IoU", *(f"{score.mean_iou:.3f}" for score in scores.values())])
    rows.append(["pixel accuracy", *(f"{score.pixel_accuracy:.1%}" for score in scores.values())])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    if absent:
        table += f"\n\n\\* no pixel of these views is {' or '.join(absent)}; the mean counts it as 0 all the same"
    return table


def _views_without_truth(views: list[View], scene: Scene) -> list[int]:
    """Numbers of the views, from 0, that show no scored class."""
    from perception.simulation.views import scored_groups

    groups = scored_groups(scene.label_set)
    return [number for number, view in enumerate(views) if not (groups[view.labels] >= 0).any()]


def _write_pictures(folder: Path, scores: dict[str, ViewScore], scene: str) -> None:
    from perception.evaluation.confusion_picture import confusion_picture

    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, score) in enumerate(scores.items(), 1):
        title = f"{name}\n{scene}: mean IoU {score.mean_iou:.3f}, pixels {score.pixel_accuracy:.1%}"
        confusion_picture(folder / f"confusion_{number}.png", score.confusion, list(score.iou), title)


def _score_photographs(folder: Path, networks: dict[str, Segmenter]) -> dict[str, Any]:
    """Agreement of all networks with the first; all pixels and images together."""
    from perception.evaluation.photographs import Agreement, compare_on_photographs

    (first, reference), *others = networks.items()
    if not others:
        raise InputError("--photos: expected at least two networks, of which the first is the reference")
    names = [name for name, _ in others]
    sums: dict[str, Agreement] = dict.fromkeys(names, Agreement())
    images: dict[str, dict[str, Any]] = {}
    for path, found in compare_on_photographs(reference, [network for _, network in others], folder):
        images[str(path.relative_to(folder))] = dict(zip(names, map(_figures, found), strict=True))
        sums = {name: sums[name] + one for name, one in zip(names, found, strict=True)}
    print(photograph_table(first, sums, len(images)))
    totals = {name: _figures(total) for name, total in sums.items()}
    return {"folder": folder.name, "reference": first, "networks": totals, "images": images}


def photograph_table(reference: str, sums: dict[str, Agreement], count: int) -> str:
    """Agreement of each network with the reference, as a Markdown table."""
    rows = [
        [f"{count} photographs, agreement with {reference}", "all pixels", "where it is confident (> 0.8)"],
        ["---"] * 3,
        *([name, f"{total.share:.1%}", f"{total.confident_share:.1%}"] for name, total in sums.items()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _figures(found: Agreement) -> dict[str, Any]:
    return {
        "all": found.share,
        "confident": found.confident_share,
        "pixels": found.pixels,
        "confident_pixels": found.confident,
    }

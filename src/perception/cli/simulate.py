# SPDX-License-Identifier: Apache-2.0
"""``perception simulate``: record a drive through a scene with known truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import parse_size
from perception.errors import InputError

if TYPE_CHECKING:
    from perception.simulation.drive import Drive, DriveOptions
    from perception.simulation.scenarios import SceneOptions

BAG_SUFFIXES = (".mcap", ".bag")


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="record a drive through a scene with known truth",
        description="Drive a robot through a scene and record color, depth, labels, poses and odometry, with the true "
        "map beside them: a folder in 7-Scenes style, or a bag (MCAP) for replay, play and the nodes.",
    )
    parser.add_argument(
        "scene",
        help="house (furnished, from --seed; needs the furniture package), boxes (plain, needs no graphics library), "
        "an SDF world with meshes (.world, .sdf), or a folder or an archive (.tar.xz) with one",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="folder of the frames or of the bag (drive.mcap makes drive/drive.mcap); must be new",
    )
    parser.add_argument(
        "--format",
        choices=("auto", "folder", "bag"),
        default="auto",
        help="auto: a bag when the name ends in .mcap or .bag",
    )
    parser.add_argument("--frames", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second (default: %(default)s)")
    parser.add_argument(
        "--size", default="640x480", metavar="WIDTHxHEIGHT", help="of the images (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the scene, the way and the noise")
    parser.add_argument(
        "--views",
        type=int,
        help="in place of a drive, so many random views of many houses with their labels, to train networks on: "
        "folders images and labels",
    )
    parser.add_argument("--views-per-house", type=int, default=25, help="default: %(default)s")
    _add_scene_arguments(parser.add_argument_group("scene"))
    _add_sensor_arguments(parser.add_argument_group("robot and sensor"))
    _add_bag_arguments(parser.add_argument_group("bag"))
    return parser


def _add_scene_arguments(group: Any) -> None:
    group.add_argument("--rooms", type=int, help="of a house (default: 3 to 6)")
    group.add_argument(
        "--variety",
        choices=("usual", "wide"),
        default="usual",
        help="wide: houses with unusual rooms, materials and light as well, to train networks on",
    )
    group.add_argument("--classes", default="aws_small_house", help="class map of a world: a shipped one, or YAML file")
    group.add_argument("--models", action="append", default=[], help="folder where a world's models are looked for")
    group.add_argument(
        "--moving",
        choices=("none", "box", "person", "doors"),
        default="none",
        help="something that moves (default: %(default)s)",
    )


def _add_sensor_arguments(group: Any) -> None:
    group.add_argument("--camera-height", type=float, default=1.0, help="0.5 to 1.5 m (default: %(default)s)")
    group.add_argument("--camera-pitch", type=float, default=12.0, help="looks down, degrees (default: %(default)s)")
    group.add_argument("--speed", type=float, default=0.5, help="of the robot, m/s (default: %(default)s)")
    group.add_argument("--depth-noise", type=float, default=0.0, help="deviation at 1 m, m; grows with the square")
    group.add_argument("--edge-dropout", type=float, default=0.0, help="share of pixels at depth edges without depth")
    group.add_argument(
        "--max-range", type=float, default=50.0, help="depth beyond is infinite, m (default: %(default)s)"
    )
    group.add_argument("--drift", type=float, default=0.0, help="relative error of the odometry, 0.02 is 2 %%")
    group.add_argument("--stamp-jitter", type=float, default=0.0, help="frames come so much early or late, s")
    group.add_argument("--samples", type=int, default=4, help="per pixel, against jagged edges (default: %(default)s)")


def _add_bag_arguments(group: Any) -> None:
    group.add_argument("--color", choices=("raw", "jpeg", "png"), default="jpeg", help="default: %(default)s")
    group.add_argument(
        "--depth", choices=("16UC1", "32FC1", "compressedDepth"), default="32FC1", help="default: %(default)s"
    )


def run(arguments: argparse.Namespace) -> int:
    """Record, then print where."""
    options = _options(arguments)
    if arguments.output.exists() and (not arguments.output.is_dir() or any(arguments.output.iterdir())):
        raise InputError(f"{arguments.output}: expected a new or empty folder, got one with something in it")
    if arguments.views is not None:
        return _views(arguments)
    from perception.simulation.scenarios import drawing, plan

    with drawing(plan(_scene(arguments), options)) as drive:
        return _record(drive, arguments)


def _options(arguments: argparse.Namespace) -> DriveOptions:
    from perception.simulation.drive import DriveOptions
    from perception.simulation.sensor import DepthSensor
    from perception.simulation.trajectory import RobotModel

    height, width = parse_size(arguments.size, "--size")
    return DriveOptions(
        frames=arguments.frames,
        rate=arguments.rate,
        width=width,
        height=height,
        camera_height=arguments.camera_height,
        camera_pitch_deg=arguments.camera_pitch,
        seed=arguments.seed,
        depth=DepthSensor(arguments.depth_noise, arguments.edge_dropout, max_range=arguments.max_range),
        drift=arguments.drift,
        stamp_jitter_s=arguments.stamp_jitter,
        robot=RobotModel(speed=arguments.speed),
        samples=arguments.samples,
    )


def _views(arguments: argparse.Namespace) -> int:
    """Random views of houses in place of a drive."""
    from tqdm import tqdm

    from perception.simulation.view_sets import ViewSetOptions, write_view_set

    if arguments.scene != "house":
        raise InputError(f"--views: expected the scene house, got {arguments.scene!r}")
    height, width = parse_size(arguments.size, "--size")
    options = ViewSetOptions(
        views=arguments.views,
        per_house=arguments.views_per_house,
        width=width,
        height=height,
        seed=arguments.seed,
        variety=arguments.variety,
        samples=arguments.samples,
    )
    with tqdm(total=options.views, desc="simulate", unit="view") as bar:

        def progress(count: int) -> None:
            bar.update(count - int(bar.n))

        count = write_view_set(arguments.output, options, progress)
    print(f"{count} views in {arguments.output}")
    return 0


def _scene(arguments: argparse.Namespace) -> SceneOptions:
    from perception.simulation.scenarios import SceneOptions

    return SceneOptions(
        arguments.scene,
        arguments.seed,
        arguments.rooms or 0,
        arguments.classes,
        tuple(arguments.models),
        arguments.moving,
        arguments.variety,
    )


def _record(drive: Drive, arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from perception.simulation.recording import write_bag, write_folder
    from perception.sources.bag_writer import BagLayout

    path = arguments.output
    as_bag = arguments.format == "bag" or (arguments.format == "auto" and path.suffix in BAG_SUFFIXES)
    with tqdm(total=drive.options.frames, desc="simulate", unit="frame") as bar:

        def progress(count: int) -> None:
            bar.update(count - bar.n)

        if as_bag:
            # A bag is a folder: out.mcap becomes out/out.mcap.
            path = path.with_suffix("") if path.suffix in BAG_SUFFIXES else path
            layout = BagLayout(compressed=True, color=arguments.color, depth=arguments.depth)
            count = write_bag(drive, path, layout, progress)
        else:
            count = write_folder(drive, path, progress)
    print(f"{count} frames of {drive.name} in {path}")
    return 0

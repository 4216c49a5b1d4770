# SPDX-License-Identifier: Apache-2.0
"""A prefix of links that ``ros2 run`` and ``ros2 launch`` find the package in, after pip alone.

``python -m perception.ros.prefix .ament`` makes it; then ``export AMENT_PREFIX_PATH=$PWD/.ament:$AMENT_PREFIX_PATH``.
A colcon workspace needs none of this.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from perception.errors import InputError, PerceptionError

PACKAGE = "perception"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
SHARED_FOLDERS = ("launch", "config")


def make_prefix(folder: Path, bin_folder: Path | None = None, share: Path | None = None) -> list[Path]:
    """Fill a folder with the package's marker, shared files and executables, all as links.

    Files are linked one by one: ros2 launch does not follow linked folders. What an earlier run linked is replaced.

    Args:
        folder: the prefix; made where it is missing.
        bin_folder: where the console scripts are; None for those beside this Python.
        share: folder with package.xml, launch and config; None searches the source tree, then the environment.

    Returns:
        The links.

    Raises:
        InputError: shared files or console scripts are missing.
    """
    share = share or find_share()
    bin_folder = bin_folder or Path(sys.executable).parent
    links = [(share / "package.xml", Path("share", PACKAGE, "package.xml"))]
    for name in SHARED_FOLDERS:
        links += [(file, Path("share", PACKAGE, file.relative_to(share))) for file in files_in(share / name)]
    scripts = [bin_folder / name for name in console_scripts()]
    links += [(script, Path("lib", PACKAGE, script.name)) for script in scripts]
    missing = [str(source) for source, _ in links if not source.is_file()]
    if missing:
        raise InputError(f"prefix: expected installed files, missing {', '.join(missing)}; run pip install first")
    marker = folder / "share" / "ament_index" / "resource_index" / "packages" / PACKAGE
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return [_link(source, folder / target) for source, target in links]


def find_share() -> Path:
    """The folder with package.xml, launch and config: of the source tree, else of the environment.

    Raises:
        InputError: neither is there.
    """
    candidates = [Path(__file__).resolve().parents[3], Path(sys.prefix) / "share" / PACKAGE]
    for candidate in candidates:
        if (candidate / "package.xml").is_file() and (candidate / "launch").is_dir():
            return candidate
    raise InputError(f"prefix: expected package.xml and launch in one of {', '.join(map(str, candidates))}")


def shared_memory_profile() -> dict[str, str]:
    """Environment that gives Fast DDS room for images; empty where the user chose a profile or ours is not there."""
    if PROFILE_VARIABLE in os.environ:
        return {}
    try:
        profile = find_share() / "config" / "fastdds_shm.xml"
    except InputError:
        return {}
    return {PROFILE_VARIABLE: str(profile)} if profile.is_file() else {}


def console_scripts() -> list[str]:
    """Names of the package's console scripts, as its installed metadata says."""
    from importlib.metadata import entry_points

    return sorted(
        {script.name for script in entry_points(group="console_scripts") if script.value.startswith(f"{PACKAGE}.")}
    )


def files_in(folder: Path) -> Iterator[Path]:
    """All files below a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def _link(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(source.absolute())
    return target


def main(arguments: list[str] | None = None) -> int:
    """Make the prefix that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m perception.ros.prefix", description=__doc__)
    parser.add_argument("folder", type=Path, help="prefix to make, .ament for example")
    folder = parser.parse_args(arguments).folder
    try:
        make_prefix(folder)
    except PerceptionError as error:
        print(f"perception: {error}", file=sys.stderr)
        return 1
    print(f"export AMENT_PREFIX_PATH={folder.resolve()}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

# SPDX-License-Identifier: Apache-2.0
"""Builds the virtual environments of the Makefile, and reuses them while their requirements do not change.

Usage: ``python3 src/bootstrap.py lean|full|jazzy``. Prints the path of the environment's python as the last line. Only
the standard library is used here; the environments live in the user's cache, named by a hash of what they are made of,
so that several clones share them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
ROS_MESSAGES = ROOT / "src" / "ros_msgs"
REQUIREMENTS = {
    "lean": ["requirements.txt"],
    "full": ["requirements.txt", "requirements-dev.txt"],
    "jazzy": ["requirements-jazzy.txt"],
}
UV = "uv==0.13.8"
"""Installs wheels several at a time; where it cannot be had, pip does the same, three times slower."""
APT_LINE = "sudo apt-get install -y python3 python3-venv python3-dev make g++"


def main() -> int:
    """Build or find the environment that the command line names."""
    profile = sys.argv[1] if len(sys.argv) == 2 else ""
    if profile not in REQUIREMENTS:
        print(f"usage: bootstrap.py {'|'.join(REQUIREMENTS)}", file=sys.stderr)
        return 2
    with_ros = profile != "lean" and platform.machine() == "x86_64" and sys.platform == "linux"
    problem = missing_on_machine(with_ros)
    if problem:
        print(f"perception: {problem}", file=sys.stderr)
        return 1
    folder = cache_folder() / f"env-{profile}-{fingerprint(profile, with_ros)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            try:
                build(folder, profile, with_ros)
            except subprocess.CalledProcessError as error:
                command = " ".join(map(str, error.cmd))
                print(f"perception: setting up the environment failed in: {command}", file=sys.stderr)
                return 1
        link_sources(folder)
    print(folder / "bin" / "python")
    return 0


def missing_on_machine(with_ros: bool) -> str:
    """A sentence about what the machine lacks, or nothing."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = platform.python_version()
        return f"expected Python 3.11 to 3.13, got {version}; choose another with: make PYTHON=python3.12 …"
    missing = []
    if util.find_spec("ensurepip") is None or util.find_spec("venv") is None:
        missing.append("python3-venv")
    if with_ros:
        if shutil.which("g++") is None or shutil.which("gcc") is None:
            missing.append("g++")
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            missing.append("python3-dev (Python.h)")
    return f"this machine lacks {', '.join(missing)}; install with: {APT_LINE}" if missing else ""


def cache_folder() -> Path:
    """The user's cache, as the XDG base directory specification says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perception"


def fingerprint(profile: str, with_ros: bool) -> str:
    """Hash of everything that goes into the environment."""
    digest = hashlib.sha256(f"{profile} {platform.python_version()} {sys.prefix} {platform.machine()}".encode())
    files = [ROOT / name for name in (*REQUIREMENTS[profile], "constraints.txt")]
    if with_ros:
        files += message_sources()
    for path in files:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def message_sources() -> list[Path]:
    """Files that the ROS message packages are built from."""
    suffixes = {".py", ".toml", ".msg", ".srv"}
    paths = ROS_MESSAGES.rglob("*")
    return sorted(path for path in paths if path.suffix in suffixes and "build" not in path.parts)


def build(folder: Path, profile: str, with_ros: bool) -> None:
    """Make the environment; the marker at the end tells a whole one from an interrupted one."""
    print(f"perception: setting up {folder} (once; later runs reuse it)", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    requirements = ROOT / REQUIREMENTS[profile][-1]
    if profile != "lean" or not install_with_uv(folder, requirements):
        run(sys.executable, "-m", "venv", "--clear", folder)
        run(*pip(folder), "install", "-r", requirements)
    if with_ros:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "ros_msgs"
            for path in message_sources():
                target = copy / path.relative_to(ROS_MESSAGES)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            run(*pip(folder), "install", "--no-build-isolation", "--no-deps", copy)
    (folder / "complete").touch()


def install_with_uv(folder: Path, requirements: Path) -> bool:
    """Make the environment with uv, which is fetched for this alone; False where pip has to do it."""
    # uv does not read pip's configuration: who has an index of their own there gets what pip gets.
    if os.environ.get("PIP_INDEX_URL") or util.find_spec("pip") is None:
        return False
    if run(sys.executable, "-m", "pip", "config", "get", "global.index-url", quiet=True):
        return False
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # A cache on the same disk: files are linked into the environment, not copied.
        tool = [Path(scratch) / "bin" / "uv", "pip", "install", "--quiet", "--cache-dir", Path(scratch) / "cache"]
        try:
            run(sys.executable, "-m", "venv", "--without-pip", folder)
            run(sys.executable, *PIP, "install", "--no-deps", "--no-compile", "--target", scratch, UV)
            run(*tool, "--python", folder / "bin" / "python", "-r", requirements)
        except subprocess.CalledProcessError:
            print("perception: uv could not set up the environment, pip will", file=sys.stderr)
            return False
    return True


def pip(folder: Path) -> list[object]:
    """Beginning of a command of the environment's own pip."""
    return [folder / "bin" / "python", *PIP]


def run(*command: object, quiet: bool = False) -> bool:
    """Run a command with its output on stderr.

    Args:
        command: program and arguments.
        quiet: its output and failure are no news; only returned.

    Raises:
        subprocess.CalledProcessError: it failed, unless quiet.
    """
    # A sourced ROS would leak its packages into pip's view of what is installed.
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    environment.setdefault("PIP_ROOT_USER_ACTION", "ignore")
    output = subprocess.DEVNULL if quiet else sys.stderr
    done = subprocess.run(
        [str(part) for part in command], check=not quiet, env=environment, stdout=output, stderr=output
    )
    return done.returncode == 0


def link_sources(folder: Path) -> None:
    """Let ``python -m perception`` find the sources of the clone that asked last."""
    site = next((folder / "lib").glob("python3*/site-packages"))
    link, text = site / "perception_sources.pth", f"{ROOT / 'src'}\n"
    if not link.exists() or link.read_text() != text:
        temporary = link.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text)
        temporary.replace(link)


if __name__ == "__main__":
    sys.exit(main())

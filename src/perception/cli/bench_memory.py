# SPDX-License-Identifier: Apache-2.0
"""``perception bench memory``: resident memory of a replay over a long run, which must not grow with its length."""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.config import PerceptionConfig
from perception.errors import InputError

if TYPE_CHECKING:
    from perception.sources import Source
    from perception.types import Frame

SECONDS = 600.0
LAP = 150
"""Frames of the synthetic room's drive until it is back where it began."""
GROWTH_BOUND_MB = 20.0
"""What the second half of a run may add; the frames of one second have 64 MB."""
SHARES = (0, 5, 10, 25, 50, 75, 100)


def run_memory(arguments: argparse.Namespace) -> int:
    """Replay some frames again and again, print the memory on the way; 1 when it grows."""
    from tqdm import tqdm

    from perception.evaluation.timing import peak_memory_mb, resident_memory_mb
    from perception.replay import Replay

    source, count = _source(arguments)
    network = arguments.labels == "network" or (arguments.labels == "auto" and source.label_set is None)
    labels = "network" if network else "none" if arguments.labels == "none" else "truth"
    samples: list[tuple[int, float]] = []
    with tqdm(total=count, desc="memory", unit="frame") as bar, tempfile.TemporaryDirectory() as folder:
        replay = Replay(source, PerceptionConfig(), Path(folder), labels)

        def progress() -> None:
            bar.update()
            if replay.frames % max(1, count // 1000) == 0:
                samples.append((replay.frames, resident_memory_mb()))

        result = replay.run(progress)
    print(f"{source.name}, labels: {labels}, {count:,} frames of {arguments.rate:g} Hz")
    print(_table(samples, count))
    growth = samples[-1][1] - max(value for frame, value in samples if frame <= count / 2)
    verdict = "met" if growth <= GROWTH_BOUND_MB else "MISSED"
    print(f"second half above the first: {growth:+.1f} MB (≤ {GROWTH_BOUND_MB:g}, {verdict})")
    print(f"peak with the files written at the end: {peak_memory_mb():.0f} MB; map {result['memory']['map_mb']:.1f} MB")
    print(f"{count / result['processing_seconds']:.1f} frames a second")
    if arguments.output:
        _write(arguments.output, samples, growth, result)
    return 0 if growth <= GROWTH_BOUND_MB else 1


def _source(arguments: argparse.Namespace) -> tuple[Source, int]:
    from perception.cli.bench import open_frames
    from perception.sources import Source

    count = round((arguments.seconds or SECONDS) * arguments.rate)
    if count < 100:
        raise InputError(f"bench memory: expected at least 100 frames (--seconds times --rate), got {count}")
    some = arguments.count
    if arguments.frames is None:
        # Spread over the lap, so that the drive sees the whole room.
        arguments = argparse.Namespace(**{**vars(arguments), "count": LAP})
    frames, name, label_set = open_frames(arguments)
    step = 1 if arguments.frames else max(1, LAP // some)
    repeated = list(itertools.islice(frames, 0, some * step, step))

    class Repeated(Source):
        """A few frames over and over, with new stamps and in arrays of their own, as a reader makes them."""

        @property
        def frame_count(self) -> int:
            return count

        def _frames(self) -> Iterator[Frame]:
            return _again(repeated, count, arguments.rate)

    return Repeated(f"{name}, {len(repeated)} frames repeated", label_set), count


def _again(frames: Sequence[Frame], count: int, rate: float) -> Iterator[Frame]:
    for number in range(count):
        frame = frames[number % len(frames)]
        stamp_ns = round(number * 1e9 / rate)
        yield replace(frame, stamp_ns=stamp_ns, color=frame.color.copy(), depth=frame.depth.copy())


def _table(samples: Sequence[tuple[int, float]], count: int) -> str:
    rows = ["| part of the run | frame | resident memory |", "|---|---|---|"]
    for share in SHARES:
        frame, memory = min(samples, key=lambda one: abs(one[0] - count * share / 100))
        rows.append(f"| {share} % | {frame:,} | {memory:.1f} MB |")
    return "\n".join(rows)


def _write(folder: Path, samples: Sequence[tuple[int, float]], growth: float, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench_memory.json"
    curve = [{"frame": frame, "resident_mb": round(memory, 1)} for frame, memory in samples]
    content = {"growth_mb": growth, "curve": curve, "replay": result}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")

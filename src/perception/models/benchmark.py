# SPDX-License-Identifier: Apache-2.0
"""Speed, memory and agreement of a segmentation network on every backend that is installed.

Each measurement runs in a process of its own, so that its peak memory is its own and no library's threads disturb
another's.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import InputError
from perception.models.backends import EXTRAS

REQUIRED_AGREEMENT = 0.995
"""A backend may stand in for PyTorch when it labels at least this share of the pixels alike."""
WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Variant:
    """A way to run a network: options of :class:`perception.models.options.ModelOptions`."""

    name: str
    backend: str
    torch_mode: str = "channels_last"
    precision: str = "float32"


VARIANTS = (
    Variant("torch eager", "torch", "contiguous"),
    Variant("torch channels_last", "torch"),
    Variant("torch compiled", "torch", "compiled"),
    Variant("torch bfloat16", "torch", precision="bfloat16"),
    Variant("onnxruntime", "onnxruntime"),
    Variant("openvino", "openvino"),
    Variant("openvino bfloat16", "openvino", precision="bfloat16"),
)
"""The first is what the others are compared with."""


@dataclass(frozen=True)
class Costs:
    """What one image costs, whatever runs it.

    Attributes:
        parameters: numbers that were learned and take part.
        flops: floating-point operations of convolutions and matrix products, a multiplication and an addition each.
        bytes_moved: read and written by all operations when none is fused with another.
    """

    parameters: int
    flops: int
    bytes_moved: int


@dataclass(frozen=True)
class Result:
    """One row of the benchmark.

    Attributes:
        variant: name of the way to run it.
        width: of the network's input, pixels.
        height: of the network's input, pixels.
        frame_ms: median from image to labels and confidence of the image's size.
        frame_p95_ms: 95th percentile of the same.
        network_ms: median of resizing, normalizing and the network; None where the network does not tell them apart.
        load_s: until the first image was labeled.
        peak_memory_mb: largest resident memory of the process.
        agreement: share of the pixels labeled as by the first variant at the same size; None where that did not run.
        costs: counted with PyTorch; None without it, or where the network does not run on it.
        skipped: why nothing was measured; empty otherwise.
    """

    variant: str
    width: int
    height: int
    frame_ms: float | None = None
    frame_p95_ms: float | None = None
    network_ms: float | None = None
    load_s: float | None = None
    peak_memory_mb: float | None = None
    agreement: float | None = None
    costs: Costs | None = None
    skipped: str = ""


def benchmark_segmenter(
    name: str,
    sizes: Sequence[tuple[int, int]],
    images: Sequence[NDArray[np.uint8]],
    *,
    variants: Sequence[Variant] = VARIANTS,
    repeats: int = 30,
    num_threads: int = 0,
) -> Iterator[Result]:
    """Measure a network.

    Args:
        name: as :func:`perception.models.create_segmenter` takes it.
        sizes: (height, width) of the network's input.
        images: (H, W, 3) uint8 RGB, shown in turn.
        variants: ways to run it; the others are compared with the first.
        repeats: timed runs of each.
        num_threads: of the CPU; 0 leaves it to the libraries.

    Yields:
        A result for each size and variant as soon as it is measured.

    Raises:
        InputError: nothing to measure with.
    """
    if not images or not sizes or repeats < 1:
        raise InputError(f"benchmark: expected images, input sizes and repeats, got {len(images)}, {sizes}, {repeats}")
    for size in sizes:
        expected: list[NDArray[Any]] = []
        for variant in variants:
            result, labels = _in_own_process(name, variant, size, images, repeats, num_threads)
            if variant == variants[0]:
                expected = labels
            if labels and expected:
                equal = [float((a == b).mean()) for a, b in zip(labels, expected, strict=True)]
                result = replace(result, agreement=float(np.mean(equal)))
            yield result


def fastest_that_agrees(results: Sequence[Result]) -> Result | None:
    """The fastest of the results that may stand in for PyTorch, by its whole frame."""
    fit = [one for one in results if one.frame_ms is not None and (one.agreement or 0) >= REQUIRED_AGREEMENT]
    return min(fit, key=lambda one: one.frame_ms or 0.0, default=None)


def to_dict(result: Result) -> dict[str, Any]:
    """For JSON."""
    return asdict(result)


def _in_own_process(
    name: str,
    variant: Variant,
    size: tuple[int, int],
    images: Sequence[NDArray[np.uint8]],
    repeats: int,
    num_threads: int,
) -> tuple[Result, list[NDArray[Any]]]:
    empty = Result(variant.name, width=size[1], height=size[0])
    missing = _missing(variant)
    if missing:
        return replace(empty, skipped=missing), []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure, name, variant, empty, images, repeats, num_threads).result()
        except BrokenProcessPool:
            return replace(empty, skipped="the process was killed, perhaps for want of memory"), []


def _missing(variant: Variant) -> str:
    if importlib.util.find_spec(variant.backend) is None:
        return f"{variant.backend} is not installed: pip install 'perception[{EXTRAS[variant.backend]}]'"
    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++")
    if variant.torch_mode == "compiled" and not any(shutil.which(compiler) for compiler in compilers if compiler):
        return "no C++ compiler is installed"
    return ""


def _measure(
    name: str,
    variant: Variant,
    empty: Result,
    images: Sequence[NDArray[np.uint8]],
    repeats: int,
    num_threads: int,
) -> tuple[Result, list[NDArray[Any]]]:
    """Runs in its own process; an exception of a library might not survive the way back, so its text goes."""
    from perception.models.registry import create_segmenter

    options: dict[str, Any] = {
        "backend": variant.backend,
        "torch_mode": variant.torch_mode,
        "precision": variant.precision,
    }
    try:
        start = time.perf_counter()
        segmenter = create_segmenter(
            name, "cpu", input_size=(empty.height, empty.width), num_threads=num_threads, **options
        )
        segmenter(images[0])
        load = time.perf_counter() - start
        labels = [segmenter(image).labels for image in images]
        frame = _milliseconds(segmenter, images, repeats)
        logits = getattr(segmenter, "logits", None)
        network = None if logits is None else float(np.median(_milliseconds(logits, images, repeats)))
        result = replace(
            empty,
            frame_ms=float(np.median(frame)),
            frame_p95_ms=float(np.percentile(frame, 95)),
            network_ms=network,
            load_s=load,
            peak_memory_mb=peak_memory_mb(),
        )
        if (variant.backend, variant.torch_mode, variant.precision) == ("torch", "contiguous", "float32"):
            from perception.models.costs import count_costs

            result = replace(result, costs=count_costs(lambda: segmenter(images[0])))
    except Exception as error:
        return replace(empty, skipped=" ".join(str(error).split())[:300] or type(error).__name__), []
    return result, labels


def _milliseconds(run: Callable[[Any], Any], images: Sequence[NDArray[np.uint8]], repeats: int) -> list[float]:
    times = []
    for index in range(-WARM_UP_RUNS, repeats):
        start = time.perf_counter()
        run(images[index % len(images)])
        if index >= 0:
            times.append(1e3 * (time.perf_counter() - start))
    return times


def peak_memory_mb() -> float:
    """Largest resident memory of this program so far, MB.

    Linux counts the memory of the program that started this one in ``ru_maxrss``, so its own record is read there.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = (line.split() for line in status.read_text(encoding="ascii", errors="replace").splitlines())
        for words in lines:
            if words[:1] == ["VmHWM:"]:
                return int(words[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

# SPDX-License-Identifier: Apache-2.0
"""Damage map files at random and see that reading them ends in a map or an InputError, in bounded memory and time."""

from __future__ import annotations

import resource
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from perception.errors import InputError
from perception.mapping.label_section import MAGIC, LeafLabels
from perception.mapping.octomap_io import MapFile, bt_bytes, ot_bytes, parse_map
from perception.mapping.octomap_kernels import morton_codes
from perception.mapping.octomap_stream import Leaves, sort_leaves

MAX_GROWTH = 64
"""Bytes of arrays that a byte of file may become."""
_LOG_ODDS = np.array([-2.0, -0.4, -0.4, 0.0, 0.85, 0.85, 3.5], np.float32)
_CRC_AT = 36
"""Place of the checksum in a label section."""


def random_leaves(rng: np.random.Generator, colored: bool = False) -> Leaves:
    """Leaves of all depths in blocks of siblings, so that some can merge; disjoint, in depth-first order.

    Args:
        rng: source of randomness.
        colored: whether they have colors, some of them unset.
    """
    near = rng.integers(0, 65536, 3)
    depths = rng.choice([16, 16, 16, 15, 14, 13], rng.integers(10, 60))
    if rng.random() < 0.3:
        depths = np.append(depths[: rng.integers(0, 10)], rng.integers(1, 17, 3))
    blocks = [np.empty((0, 3), np.int64)]
    for depth in depths.tolist():
        key = (near + rng.integers(-8, 8, 3)) % 65536 if depth > 12 else rng.integers(0, 65536, 3)
        size = 1 << (16 - depth)
        blocks.append((key // (2 * size) * 2 + np.indices((2, 2, 2)).reshape(3, 8).T) * size)
    keys = np.concatenate(blocks).astype(np.uint16)
    log_odds = np.repeat(rng.choice(_LOG_ODDS, len(depths)), 8)
    log_odds = np.where(rng.random(len(keys)) < 0.95, log_odds, rng.choice(_LOG_ODDS, len(keys))).astype(np.float32)
    kept = rng.random(len(keys)) < 0.95
    leaves = sort_leaves(keys[kept], np.repeat(depths, 8).astype(np.uint8)[kept], log_odds[kept])
    leaves = _disjoint(leaves)
    if not colored:
        return leaves
    return leaves._replace(colors=rng.choice(np.array([255, 255, 0, 7, 200], np.uint8), (len(leaves.depths), 3)))


def _disjoint(leaves: Leaves) -> Leaves:
    """Without the leaves that start before one ahead of them ends."""
    starts = morton_codes(leaves.keys)
    ends = starts + (np.int64(1) << 3 * (16 - leaves.depths.astype(np.int64)))
    before = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])
    kept = starts >= before
    return Leaves(leaves.keys[kept], leaves.depths[kept], leaves.log_odds[kept])


def fuzz(mutations: int, seed: int = 0) -> dict[str, Any]:
    """Read damaged .ot and .bt files, labeled ones among them, some with the checksum made right again.

    A map that is accepted must be written and read again without a change.

    Args:
        mutations: how many files to read.
        seed: of the random damage; the same seed gives the same files.

    Returns:
        mutations, seed, accepted, refused, refusals (how often each kind of sentence), failures (a sentence for
        each file that gave anything but a map or an InputError, too large a map, or one that changed when written
        again), growth (largest ratio of array bytes to file bytes), peak_memory_mb (by which the process grew its
        peak), slowest_ms, seconds.
    """
    rng = np.random.default_rng(seed)
    corpus = _corpus(rng)
    for data in corpus:
        # Compiles what the loop below would otherwise be timed with.
        _survives(parse_map(data))
    refusals: Counter[str] = Counter()
    failures: list[str] = []
    growth = slowest = 0.0
    start, memory = time.perf_counter(), _peak_memory_mb()
    for number in range(mutations):
        data = _damage(corpus, rng)
        begun = time.perf_counter()
        try:
            parsed = parse_map(data)
        except InputError as error:
            refusals[str(error).split(", got")[0].split("expected")[0].strip(" :") or "other"] += 1
        except Exception as error:
            failures.append(f"file {number} of seed {seed}: {type(error).__name__}: {error}")
        else:
            growth = max(growth, _array_bytes(parsed) / len(data))
            if not _survives(parsed):
                failures.append(f"file {number} of seed {seed}: changed when written again")
        slowest = max(slowest, time.perf_counter() - begun)
    if growth > MAX_GROWTH:
        failures.append(f"arrays grew to {growth:.0f} times the file, expected at most {MAX_GROWTH}")
    refused = sum(refusals.values())
    return {
        "mutations": mutations,
        "seed": seed,
        "accepted": mutations - refused - len(failures),
        "refused": refused,
        "refusals": dict(refusals.most_common()),
        "failures": failures,
        "growth": round(growth, 1),
        "peak_memory_mb": round(_peak_memory_mb() - memory, 1),
        "slowest_ms": round(1000 * slowest, 2),
        "seconds": round(time.perf_counter() - start, 2),
    }


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _corpus(rng: np.random.Generator) -> list[bytes]:
    """Good files of every kind."""
    files = []
    for _ in range(12):
        leaves = random_leaves(rng, colored=True)
        count = len(leaves.depths)
        index = np.flatnonzero(leaves.log_odds >= 0).astype(np.uint32)
        ids = rng.integers(0, 40, (len(index), 4)).astype(np.uint16)
        labels = LeafLabels(index, ids, rng.random(ids.shape, np.float32), {"frame_id": "map", "leaves": count})
        files += [
            ot_bytes(leaves, 0.05, labels),
            ot_bytes(leaves, 0.05),
            ot_bytes(leaves._replace(colors=None), 0.1, labels),
            ot_bytes(leaves._replace(colors=None), 0.1),
            bt_bytes(leaves, 0.1),
        ]
    return files


def _survives(parsed: MapFile) -> bool:
    """Whether the map is the same after it was written and read again; a .bt may be pruned once."""
    data = _written(parsed)
    return _written(parse_map(data)) == data


def _written(parsed: MapFile) -> bytes:
    if parsed.binary:
        return bt_bytes(parsed.leaves, parsed.resolution)
    return ot_bytes(parsed.leaves, parsed.resolution, parsed.labels)


def _array_bytes(parsed: MapFile) -> int:
    arrays = [array for array in parsed.leaves if array is not None]
    if parsed.labels is not None:
        arrays += [parsed.labels.index, parsed.labels.ids, parsed.labels.scores]
    return sum(array.nbytes for array in arrays)


def _damage(corpus: list[bytes], rng: np.random.Generator) -> bytes:
    """A file of the corpus after one to three kinds of damage."""
    data = bytearray(corpus[rng.integers(len(corpus))])
    for _ in range(rng.integers(1, 4)):
        if len(data) > 1:
            _DAMAGES[rng.integers(len(_DAMAGES))](data, corpus, rng)
    if rng.random() < 0.5:
        _mend_checksum(data)
    return bytes(data)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """A position: one of three in the header."""
    return int(rng.integers(min(len(data), 130) if rng.random() < 0.3 else len(data)))


def _flip_bit(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def _set_byte(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    data[_place(data, rng)] = int(rng.choice(np.array([0, 1, 10, 32, 48, 57, 127, 128, 255])))


def _cut(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    del data[_place(data, rng) :]


def _insert(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    at = _place(data, rng)
    data[at:at] = rng.bytes(int(rng.integers(1, 20)))


def _remove(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    at = _place(data, rng)
    del data[at : at + int(rng.integers(1, 20))]


def _repeat(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    at = _place(data, rng)
    data[at:at] = data[at : at + int(rng.integers(1, 200))]


def _splice(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    other = corpus[rng.integers(len(corpus))]
    data[_place(data, rng) :] = other[int(rng.integers(len(other))) :]


def _overwrite_number(data: bytearray, corpus: list[bytes], rng: np.random.Generator) -> None:
    at, size = _place(data, rng), int(rng.choice([2, 4, 8]))
    value = int(rng.choice([0, 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**62])) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, "little")


def _mend_checksum(data: bytearray) -> None:
    """Make the checksum of the label section right again, so that damage reaches what it guards."""
    at = data.rfind(MAGIC)
    if 0 <= at <= len(data) - _CRC_AT - 4:
        crc = zlib.crc32(data[at + _CRC_AT + 4 :], zlib.crc32(data[at : at + _CRC_AT]))
        data[at + _CRC_AT : at + _CRC_AT + 4] = crc.to_bytes(4, "little")


_DAMAGES: tuple[Callable[[bytearray, list[bytes], np.random.Generator], None], ...] = (
    _flip_bit,
    _set_byte,
    _cut,
    _insert,
    _remove,
    _repeat,
    _splice,
    _overwrite_number,
)

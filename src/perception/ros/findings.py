# SPDX-License-Identifier: Apache-2.0
"""What ``perception doctor`` finds; imports nothing of ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "ok", "warning" (works, or only a part does not) or "error".
        check: what was looked at, a word or two.
        text: what was found, a sentence.
        advice: what to do; empty where nothing needs to be done.
    """

    level: Level
    check: str
    text: str
    advice: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding("ok", check, text)


def warning(check: str, text: str, advice: str) -> Finding:
    """It works, but not as it should, or only a part does not."""
    return Finding("warning", check, text, advice)


def error(check: str, text: str, advice: str) -> Finding:
    """It cannot work like this."""
    return Finding("error", check, text, advice)

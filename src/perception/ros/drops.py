# SPDX-License-Identifier: Apache-2.0
"""Why frames are given up. Without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perception.errors import InputError


class FrameDroppedError(InputError):
    """A frame cannot be used.

    Attributes:
        reason: one of ``statistics.REASONS``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def dropping(reason: str) -> Iterator[None]:
    """Name the reason for which input errors drop a frame."""
    try:
        yield
    except FrameDroppedError:
        raise
    except InputError as error:
        raise FrameDroppedError(reason, str(error)) from error

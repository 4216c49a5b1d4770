# SPDX-License-Identifier: Apache-2.0
"""The errors that this package raises on purpose; everything else is a bug."""

from __future__ import annotations


class PerceptionError(Exception):
    """Base of all expected errors; the message is one sentence for the user."""


class InputError(PerceptionError, ValueError):
    """Data, a file, a message or a parameter is not what was expected; the message names both."""


class MissingDependencyError(PerceptionError, ImportError):
    """An optional library is needed; the message says which extra to install."""


class TransformError(PerceptionError, LookupError):
    """A transform between two frames is not available at the asked time.

    Attributes:
        reason: one of "no_tf" (frames not connected), "extrapolation_future" (newer than the newest
            transform: waiting may help), "extrapolation_past" (older than the oldest one kept).
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

# SPDX-License-Identifier: Apache-2.0
"""What a run tells of frames that it lost, and of other trouble with a recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def loss_lines(
    dropped: Mapping[str, int], warnings: Mapping[str, int], details: Mapping[str, str], told: str = ""
) -> Iterator[str]:
    """One line for each reason, with its first explanation.

    Args:
        dropped: frames lost, by reason.
        warnings: other trouble, by reason.
        details: the first explanation of a reason; may lack some.
        told: an explanation that is said elsewhere: warnings with it are left out.
    """
    for title, counts in (("dropped", dropped), ("warning", warnings)):
        for reason, count in counts.items():
            detail = details.get(reason, "")
            if not detail or detail != told:
                yield f"{title}: {count} × {reason}{f' ({detail})' if detail else ''}"

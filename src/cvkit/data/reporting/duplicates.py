"""Images that come twice: equal pixels, and images that look alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from cvkit.data.reporting.look import Look

__all__ = ["MOST_NEAR", "equal", "near"]

MOST_NEAR = 100_000
"""The most samples that are compared for likeness, each with each."""

_MOST_BITS = 8  # of 128 that may differ
_ROWS = 1024


def equal(looks: Sequence[Look]) -> list[list[Look]]:
    """Returns groups of samples whose decoded images are equal, in the order of the first of each."""
    groups: dict[str, list[Look]] = {}
    for look in looks:
        if look.pixels:
            groups.setdefault(look.pixels, []).append(look)
    return [group for group in groups.values() if len(group) > 1]


def near(looks: Sequence[Look]) -> Iterator[tuple[Look, Look, int]]:
    """Yields pairs of samples that look alike and are not equal, with the bits of 128 in which they differ.

    Of equal images only the first is compared.

    Args:
        looks: At most :data:`MOST_NEAR` of them: each is compared with each.
    """
    first = {look.pixels: look for look in reversed(looks) if look.bits is not None}
    chosen = list(first.values())[::-1]
    if len(chosen) < 2:
        return
    signs = torch.from_numpy(np.stack([look.bits for look in chosen if look.bits is not None])).float() * 2 - 1
    width = signs.shape[1]
    for start in range(0, len(chosen), _ROWS):
        rows = signs[start : start + _ROWS]
        alike = rows @ signs[start:].T >= width - 2 * _MOST_BITS
        for row, column in alike.triu(1).nonzero().tolist():
            differing = round((width - float(rows[row] @ signs[start + column])) / 2)
            yield chosen[start + row], chosen[start + column], differing

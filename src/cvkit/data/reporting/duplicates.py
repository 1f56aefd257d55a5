"""Images that come twice: equal pixels, and images that look alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cvkit.data.reporting.look import TURNS, Bits, Look

__all__ = ["MOST_NEAR", "equal", "near"]

MOST_NEAR = 100_000
"""The most samples that are compared for likeness, each with each."""

_MOST_BITS = 8  # of 128 that may differ
_ROWS = 1024
_DETAIL = "{} of 128 bits of a perceptual hash differ"


def equal(looks: Sequence[Look]) -> list[list[Look]]:
    """Returns groups of samples whose decoded images are equal, in the order of the first of each."""
    groups: dict[str, list[Look]] = {}
    for look in looks:
        if look.pixels:
            groups.setdefault(look.pixels, []).append(look)
    return [group for group in groups.values() if len(group) > 1]


def near(looks: Sequence[Look]) -> Iterator[tuple[Look, Look, str]]:
    """Yields pairs of samples that look alike and are not equal, each once, with what was found.

    Of equal images in a split only the first is compared. Copies that are mirrored or turned are looked for across splits:
    within a split they are as a rule what somebody has made more data with.

    Args:
        looks: At most :data:`MOST_NEAR` of them: each is compared with each.
    """
    first = {(look.pixels, look.split): look for look in reversed(looks) if look.bits is not None}
    chosen = list(first.values())[::-1]
    seen: set[tuple[int, int]] = set()
    for one, other, detail in (*_alike(chosen), *_cropped(chosen), *_turned(chosen)):
        pair = (min(id(one), id(other)), max(id(one), id(other)))
        if pair not in seen and one.pixels != other.pixels:
            seen.add(pair)
            yield one, other, detail


def _alike(chosen: Sequence[Look]) -> Iterator[tuple[Look, Look, str]]:
    signs = _signs([look.bits for look in chosen])
    for start in range(0, len(chosen), _ROWS):
        for row, column, bits in _close(signs[start : start + _ROWS], signs[start:], upper=True):
            yield chosen[start + row], chosen[start + column], _DETAIL.format(bits)


def _cropped(chosen: Sequence[Look]) -> Iterator[tuple[Look, Look, str]]:
    """Yields small images and what is like them without a row or a column at an edge: one pixel moves all cells there."""
    whole: dict[bytes, list[Look]] = {}
    for look in chosen:
        if look.cropped and look.bits is not None:
            whole.setdefault(np.packbits(look.bits).tobytes(), []).append(look)
    for look in chosen:
        for part in look.cropped:
            for other in whole.get(part, ()):
                if other is not look and sum(other.size) < sum(look.size):
                    swapped = (look.split, look.index) > (other.split, other.index)
                    pair = (other, look) if swapped else (look, other)
                    yield (*pair, "one is like the other without a row or a column of pixels at an edge")


def _turned(chosen: Sequence[Look]) -> Iterator[tuple[Look, Look, str]]:
    splits = list(dict.fromkeys(look.split for look in chosen))
    if len(splits) < 2:
        return
    train, val = ([look for look in chosen if look.split == split] for split in splits)
    held = _signs([look.bits for look in val])
    for way, name in enumerate(TURNS):
        for start in range(0, len(train), _ROWS):
            part = train[start : start + _ROWS]
            rows = _signs([look.turned[way] if look.turned is not None else None for look in part])
            for row, column, bits in _close(rows, held, upper=False):
                yield part[row], val[column], f"{name}: {_DETAIL.format(bits)}"


def _signs(bits: Sequence[Bits | None]) -> Tensor:
    """Returns hashes as -1 and 1 ``(N, 128)``."""
    rows = [one for one in bits if one is not None]
    return torch.from_numpy(np.stack(rows)).float() * 2 - 1 if rows else torch.zeros(0, 128)


def _close(rows: Tensor, columns: Tensor, *, upper: bool) -> Iterator[tuple[int, int, int]]:
    """Yields the places of hashes that differ in few bits, and in how many."""
    width = rows.shape[1]
    products = rows @ columns.T
    alike = products >= width - 2 * _MOST_BITS
    for row, column in (alike.triu(1) if upper else alike).nonzero().tolist():
        yield row, column, round((width - float(products[row, column])) / 2)

"""A permutation that is computed, not stored: any part of any epoch's order, for a billion samples, in constant memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from cvkit.seeding import derive

__all__ = ["Permutation"]

Words: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

_ROUNDS = 8
"""Each half is changed four times; Luby and Rackoff (1988) need four rounds in all of a random function."""

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""The multipliers of SplitMix64's output function (Steele, Lea and Flood 2014)."""


class Permutation:
    """A keyed bijection on ``0 … count - 1``, of which any value is computed alone.

    A Feistel network on the smallest power of two that holds ``count``; what it leads outside of ``count`` goes through it
    again until it is inside (cycle walking, Black and Rogaway 2002), twice at most on average.

    Args:
        count: How many values there are.
        seed: Which of the permutations.
        *keys: What it is for, as in :func:`cvkit.seeding.derive`.
    """

    def __init__(self, count: int, seed: int, *keys: int | str) -> None:
        self.count = count
        bits = max(count - 1, 1).bit_length()
        self._low = np.uint64(bits - bits // 2)
        self._low_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits // 2)) - 1)
        self._keys = [np.uint64(derive(seed, *keys, number)) for number in range(_ROUNDS)]

    def __call__(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the values at some places.

        Args:
            places: int64, each from 0 to ``count - 1``.

        Returns:
            int64, as many.
        """
        values = self._network(places.astype(np.uint64))
        outside = np.flatnonzero(values >= self.count)
        while outside.size:
            values[outside] = self._network(values[outside])
            outside = outside[values[outside] >= self.count]
        return values.astype(np.int64)

    def _network(self, values: Words) -> Words:
        low, high = values & self._low_mask, values >> self._low
        for number in range(0, _ROUNDS, 2):
            high ^= _mixed(low, self._keys[number]) & self._high_mask
            low ^= _mixed(high, self._keys[number + 1]) & self._low_mask
        return (high << self._low) | low


def _mixed(values: Words, key: np.uint64) -> Words:
    """Returns 64 bits that all depend on all bits of a value and of a key."""
    mixed = values ^ key
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(29)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(32)
    return mixed

"""Event files: records of bytes, each with its length and two checksums.

tensorboardX computes the checksums byte by byte in Python, a tenth of a second for a megabyte of picture; here long records are
summed many bytes at a time.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Records", "crc32c"]

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, with its bits reversed; RFC 3720, section 12.1
_LANES = 2048
_LONG = 1 << 14

Words = npt.NDArray[np.uint32]


class Records:
    """A new event file, written to by this thread.

    Args:
        directory: Where it goes; made where it is not there.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # files are told apart, and put in order, by the second; a resume may come sooner
        now = time.time_ns()
        self.path = directory / f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{now:020d}"
        self._file = open(self.path, "xb")  # noqa: SIM115 - closed by close()

    def write(self, content: bytes) -> None:
        """Adds a record."""
        length = struct.pack("<Q", len(content))
        head, tail = struct.pack("<I", _masked(length)), struct.pack("<I", _masked(content))
        self._file.write(b"".join((length, head, content, tail)))

    def flush(self) -> None:
        """Puts everything on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Puts everything on the disk and closes the file."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()


def _masked(content: bytes) -> int:
    """Returns the checksum as records hold it; source: ``tensorflow/core/lib/hash/crc32c.h``."""
    crc = crc32c(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """Returns the CRC-32C of some bytes.

    Long content is cut into lanes of equal length that are summed side by side, two bytes at a time; then the lanes' sums are
    put together in pairs, the left one moved on by the length of the right one. All of it is linear over single bits.
    """
    if len(content) < _LONG:
        return _short(content)
    pairs = -(-len(content) // (2 * _LANES))
    lanes = np.zeros(_LANES * pairs * 2, np.uint8)  # zeros in front change nothing
    lanes[-len(content) :] = np.frombuffer(content, np.uint8)
    first = len(lanes) - len(content)
    lanes[first : first + 4] ^= 0xFF  # as a register that begins with ones
    columns = np.ascontiguousarray(lanes.view("<u2").reshape(_LANES, pairs).T)
    table = _table()
    sums = np.zeros(_LANES, np.uint32)
    for column in columns:
        sums = table[(sums ^ column) & 0xFFFF] ^ (sums >> 16)
    move = _advance(_basis(), pairs)
    while len(sums) > 1:
        sums = _apply(move, sums[0::2]) ^ sums[1::2]
        move = _apply(move, move)
    return int(sums[0]) ^ 0xFFFFFFFF


def _short(content: bytes) -> int:
    table, crc = _bytes(), 0xFFFFFFFF
    for one in content:
        crc = table[(crc ^ one) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@functools.cache
def _bytes() -> tuple[int, ...]:
    return tuple(_after(value, 8) for value in range(256))


def _after(value: int, bits: int) -> int:
    for _ in range(bits):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


@functools.cache
def _table() -> Words:
    """What two bytes leave in the register, for each of 65,536 pairs."""
    one = np.array(_bytes(), np.uint32)
    pairs = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        pairs = one[pairs & 0xFF] ^ (pairs >> 8)
    return pairs


def _basis() -> Words:
    return np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32), dtype=np.uint32)


def _advance(states: Words, pairs: int) -> Words:
    """Returns what registers become after so many pairs of zeros."""
    table = _table()
    for _ in range(pairs):
        states = table[states & 0xFFFF] ^ (states >> 16)
    return states


def _apply(move: Words, states: Words) -> Words:
    """Returns what a linear map, given by what it makes of each bit, makes of registers."""
    made = np.zeros_like(states)
    for bit in range(32):
        made ^= np.where((states >> np.uint32(bit)) & np.uint32(1), move[bit], np.uint32(0))
    return made

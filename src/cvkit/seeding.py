"""Random numbers: seeds derived from keys, and every generator captured and restored.

A derived seed is a pure function of its keys, so that whoever needs random numbers for (seed, epoch, index) gets
the same ones in any process, in any order and after any resume.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from cvkit.errors import ArgumentError

__all__ = ["capture", "derive", "peek", "preserved", "restore", "seed_all"]


def derive(seed: int, *keys: int | str) -> int:
    """Derives a seed from a seed and any number of keys.

    Args:
        seed: The run's seed.
        *keys: What the new seed is for, e.g. ``("order", epoch)``.

    Returns:
        An integer in ``[0, 2**63)``, the first eight bytes of BLAKE2b over the keys: stable over processes, platforms
        and Python versions, and without the correlations that ``seed + epoch`` has.
    """
    digest = hashlib.blake2b(repr((seed, *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def peek() -> int:
    """Returns the seed that torch's global generator would give next, without taking it.

    A script's own ``torch.manual_seed`` therefore decides, and the global generator stands where it stood.
    """
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return int(torch.randint(0, 2**63 - 1, (), generator=generator).item())


def seed_all(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's global generators (all devices).

    Raises:
        ArgumentError: ``seed`` is not an integer in ``[0, 2**63)``.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ArgumentError(
            "the seed cannot be used",
            got=repr(seed),
            expected="an integer from 0 to 2**63 - 1",
            fix="pass e.g. seed=0, or leave it out",
        )
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """Returns the state of every global generator, as tensors and plain types only.

    Covers Python's :mod:`random`, NumPy's legacy global generator, torch's CPU generator and every CUDA or MPS
    generator that is in use.
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = list(torch.cuda.get_rng_state_all())
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore(state: dict[str, Any]) -> None:
    """Puts back every generator that :func:`capture` found.

    A generator of a device that this machine does not have is left out: a run may move to another device.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, index)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def preserved() -> Iterator[None]:
    """Leaves every global generator as it was on entry."""
    state = capture()
    try:
        yield
    finally:
        restore(state)

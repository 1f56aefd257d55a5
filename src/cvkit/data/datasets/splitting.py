"""A dataset in parts: two of them, or k folds; each class by the same share, groups kept together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from cvkit import seeding
from cvkit.data.datasets.base import Subset
from cvkit.errors import ArgumentError

__all__ = ["Groups", "kfold", "split"]

Groups: TypeAlias = Sequence[Hashable] | Callable[[str], Hashable]
"""The group of each sample, or a function from a sample's path to its group."""

_Counts: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
_TRIES = 16  # orders of the groups of which the best is taken


def split(dataset: Any, fraction: float, seed: int = 0, *, groups: Groups | None = None) -> tuple[Subset, Subset]:
    """Splits a dataset in two, each class by the same share.

    Args:
        dataset: A dataset with ``targets``.
        fraction: The share of the second part, e.g. 0.2 for validation.
        seed: Which samples; the same seed gives the same split.
        groups: What stays together, e.g. the patient, the video or the source of each sample: one value a sample, or a
            function from a sample's path to it. Shares are then kept as far as the groups allow.

    Returns:
        The larger remainder and the part, each in the order of the whole. Without ``groups`` every class of two samples or
        more is in both.

    Raises:
        ArgumentError: A fraction outside 0 to 1, a dataset without targets or with no class of two samples or more, or
            ``groups`` that do not fit it or are fewer than two.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(
            "fraction cannot be used", got=fraction, expected="a number between 0 and 1", fix="fraction=0.2"
        )
    strata = _strata(dataset, "split")
    generator = torch.Generator().manual_seed(seeding.derive(seed, "split"))
    if groups is not None:
        part = _grouped_part(_members(dataset, groups, 2), strata, fraction, generator)
    else:
        part = _stratified_part(strata, fraction, generator)
    if not part:
        raise ArgumentError(
            "this dataset cannot be split",
            got=f"{len(dataset)} samples in {len(set(strata))} classes, no class with two",
            expected="at least one class of two samples or more",
            fix="add samples, or choose the two parts by hand: Subset(dataset, indices)",
        )
    return _two(dataset, part)


def kfold(dataset: Any, k: int, *, groups: Groups | None = None, seed: int = 0) -> Iterator[tuple[Subset, Subset]]:
    """Returns k ways to split a dataset into training and validation; each sample is in exactly one validation part.

    Args:
        dataset: A dataset with ``targets``.
        k: The number of folds, 2 or more.
        groups: As in :func:`split`.
        seed: Which samples; the same seed gives the same folds.

    Returns:
        An iterator over ``(train, val)``, each in the order of the whole. Each class has the same share in every fold, as far
        as its samples, or the groups, allow.

    Raises:
        ArgumentError: ``k`` below 2 or above the number of samples or groups, a dataset without targets, or ``groups`` that
            do not fit it.
    """
    strata = _strata(dataset, "cut into folds")
    if isinstance(k, bool) or not isinstance(k, int) or not 2 <= k <= len(dataset):
        raise ArgumentError(
            "k cannot be used", got=repr(k), expected=f"an integer from 2 to {len(dataset)}, the samples", fix="k=5"
        )
    generator = torch.Generator().manual_seed(seeding.derive(seed, "kfold"))
    if groups is not None:
        folds = _grouped_folds(_members(dataset, groups, k), strata, k, generator)
    else:
        folds = _stratified_folds(strata, k, generator)
    return (_two(dataset, fold) for fold in folds)


def _two(dataset: Any, part: set[int]) -> tuple[Subset, Subset]:
    rest = [index for index in range(len(dataset)) if index not in part]
    return Subset(dataset, rest), Subset(dataset, sorted(part))


def _strata(dataset: Any, what: str) -> list[Hashable]:
    """Returns what each sample is stratified by."""
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != len(dataset):
        there = "without targets" if targets is None else f"with {len(targets)} targets"
        raise ArgumentError(
            f"this dataset cannot be {what} by class",
            got=f"{type(dataset).__name__} of {len(dataset)} samples {there}",
            expected="targets, one a sample",
            fix="give the dataset a list of targets",
        )
    plain = targets.tolist() if isinstance(targets, torch.Tensor | np.ndarray) else targets
    return [_class_of(target) for target in plain]


def _class_of(target: Any) -> Hashable:
    """Returns what a sample is stratified by: an integer or a name; all other targets form one group."""
    if isinstance(target, torch.Tensor | np.ndarray | np.generic):
        target = target.tolist()
    return target if isinstance(target, int | str) else None


def _by(values: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Returns the indices of each value, in the order in which values are first met."""
    found: dict[Hashable, list[int]] = {}
    for index, value in enumerate(values):
        found.setdefault(value, []).append(index)
    return found


def _stratified_part(strata: Sequence[Hashable], fraction: float, generator: torch.Generator) -> set[int]:
    part: set[int] = set()
    for members in _by(strata).values():
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        order = torch.randperm(len(members), generator=generator).tolist()
        part.update(members[i] for i in order[:count])
    return part


def _stratified_folds(strata: Sequence[Hashable], k: int, generator: torch.Generator) -> list[set[int]]:
    """Returns folds to which the samples of each class are dealt in turn, where the class before has ended."""
    folds: list[set[int]] = [set() for _ in range(k)]
    place = 0
    for members in _by(strata).values():
        for i in torch.randperm(len(members), generator=generator).tolist():
            folds[place % k].add(members[i])
            place += 1
    return folds


def _members(dataset: Any, groups: Groups, least: int) -> list[list[int]]:
    """Returns the samples of each group.

    Raises:
        ArgumentError: Not one group a sample, a sample without one, or fewer than ``least``.
    """
    if callable(groups):
        paths = getattr(dataset, "paths", None)
        if paths is None:
            raise ArgumentError(
                "groups cannot be a function of the path here",
                got=f"a {type(dataset).__name__}, whose samples are no files",
                expected="one value a sample",
                fix="groups=[…]",
            )
        values = [groups(path) for path in paths]
    else:
        values = groups.tolist() if isinstance(groups, torch.Tensor | np.ndarray) else list(groups)
    missing = [index for index, value in enumerate(values) if value is None]
    if len(values) != len(dataset) or missing:
        raise ArgumentError(
            "groups do not fit the dataset",
            got=f"no group for {len(missing)} samples, e.g. sample {missing[0]}"
            if missing
            else f"{len(values)} groups",
            expected=f"one group for each of {len(dataset)} samples",
            fix="give a sample that belongs to no other a group of its own",
        )
    found = list(_by(values).values())
    if len(found) < least:
        raise ArgumentError(
            "there are too few groups",
            got=f"{len(found)} groups in {len(dataset)} samples",
            expected=f"at least {least}",
            fix="see that groups= names what a sample belongs to",
        )
    return found


def _counts(members: Sequence[Sequence[int]], strata: Sequence[Hashable]) -> _Counts:
    """Returns which share of each class each group has ``(groups, classes)``."""
    column = {stratum: place for place, stratum in enumerate(dict.fromkeys(strata))}
    made = np.zeros((len(members), len(column)))
    for row, indices in enumerate(members):
        for index in indices:
            made[row, column[strata[index]]] += 1
    shares: _Counts = made / made.sum(axis=0)
    return shares


def _grouped_part(
    members: list[list[int]], strata: Sequence[Hashable], fraction: float, generator: torch.Generator
) -> set[int]:
    """Returns groups that together have about a fraction of each class: the best of several random orders."""
    shares = _counts(members, strata)
    best: tuple[float, list[int]] = (np.inf, [])
    for _ in range(_TRIES):
        chosen: list[int] = []
        order = torch.randperm(len(members), generator=generator).tolist()
        held, far = np.zeros(shares.shape[1]), np.inf
        for row in order:
            now = float(((held + shares[row] - fraction) ** 2).sum())
            if now < far and len(chosen) < len(members) - 1:
                chosen, held, far = [*chosen, row], held + shares[row], now
        best = min(best, (far, chosen), key=lambda one: one[0])
    return {index for row in best[1] for index in members[row]}


def _grouped_folds(
    members: list[list[int]], strata: Sequence[Hashable], k: int, generator: torch.Generator
) -> list[set[int]]:
    """Returns folds; each group, the largest first, goes to the fold that then is nearest to its share of each class."""
    shares = _counts(members, strata)
    order = torch.randperm(len(members), generator=generator).tolist()
    order.sort(key=lambda row: -len(members[row]))
    held = np.zeros((k, shares.shape[1]))
    folds: list[set[int]] = [set() for _ in range(k)]
    for place, row in enumerate(order):
        worse = ((held + shares[row] - 1 / k) ** 2 - (held - 1 / k) ** 2).sum(axis=1)
        empty = [fold for fold in range(k) if not folds[fold]]
        among = empty if len(order) - place <= len(empty) else range(k)  # no fold stays empty
        best = min(among, key=lambda fold: (round(float(worse[fold]), 12), len(folds[fold]), fold))
        held[best] += shares[row]
        folds[best].update(members[row])
    return folds

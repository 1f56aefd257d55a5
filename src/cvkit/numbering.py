"""Which class a number means: the parts of torch's ``ConcatDataset`` alike, and labels that are text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.utils.data import ConcatDataset

from cvkit.errors import DataError

__all__ = ["check_numbering", "classes_keyword", "known_classes", "text_among", "whole_of"]

_PLAIN = ("torch", "cvkit")
"""Whose ``__getitem__`` gives the targets of the parts unchanged; one of a user's own may number them anew."""


def check_numbering(dataset: Any) -> None:
    """Refuses a ``ConcatDataset`` whose parts number their classes differently, also inside of subsets and of another one.

    A part's class names are its documented attribute ``classes`` (``known_classes`` where it has that). A part without class
    names, or with a ``target_transform``, says nothing. Names that only go on where those of another part end number alike.

    Args:
        dataset: Any dataset.

    Raises:
        DataError: Two parts give different classes the same number.
    """
    _numbered(dataset)


def known_classes(dataset: Any) -> list[str] | None:
    """Returns a dataset's class names as far as they are known without reading a file, or ``None``."""
    whole = whole_of(dataset)
    names = whole.known_classes if hasattr(whole, "known_classes") else getattr(whole, "classes", None)
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return list(names) if listed and names is not None else None


def text_among(targets: Any) -> list[str]:
    """Returns the labels that are text among the targets of a batch; of a tensor, and of anything else, none."""
    return [target for target in targets if isinstance(target, str)] if isinstance(targets, list | tuple) else []


def classes_keyword(labels: Iterable[str], known: list[str] | None = None) -> str:
    """Returns the argument that names classes, for a message.

    Args:
        labels: Labels that were seen.
        known: All class names in their order, where the dataset tells them.

    Returns:
        E.g. ``classes=['cat', 'dog']``; of many names the first ten and an ellipsis.
    """
    names = known if known is not None else sorted(set(labels))
    return f"classes=[{', '.join(repr(str(name)) for name in names[:10])}{', …' if names[10:] else ''}]"


def whole_of(dataset: Any) -> Any:
    """Returns the whole of a subset of torch's or cvkit's, and of subsets of such; any other dataset itself."""
    while hasattr(dataset, "dataset") and hasattr(dataset, "indices") and _is_plain(dataset):
        dataset = dataset.dataset
    return dataset


def _numbered(dataset: Any) -> list[str] | None:
    whole = whole_of(dataset)
    if not isinstance(whole, ConcatDataset):
        renumbers = getattr(whole, "target_transform", None) is not None
        return None if renumbers else known_classes(whole)
    if not _is_plain(whole):
        return None
    longest: tuple[int, list[str]] | None = None
    for place, part in enumerate(whole.datasets):
        names = _numbered(part)
        if names is None:
            continue
        if longest is not None and any(one != other for one, other in zip(names, longest[1], strict=False)):
            raise _differently(whole.datasets, (longest[0], place), (longest[1], names))
        if longest is None or len(names) > len(longest[1]):
            longest = (place, names)
    return longest[1] if longest is not None else None


def _is_plain(dataset: Any) -> bool:
    owner = next((kind for kind in type(dataset).__mro__ if "__getitem__" in vars(kind)), None)
    return owner is not None and owner.__module__.split(".")[0] in _PLAIN


def _differently(parts: Any, places: tuple[int, int], names: tuple[list[str], list[str]]) -> DataError:
    said = [
        f"part {place} ({type(whole_of(parts[place])).__name__}): {', '.join(known[:5])}" + (", …" if known[5:] else "")
        for place, known in zip(places, names, strict=True)
    ]
    together = list(dict.fromkeys([*names[0], *names[1]]))
    again = f", or build each part with classes={together}" if len(together) <= 10 else ""
    return DataError(
        "the parts of this ConcatDataset number their classes differently",
        got="; ".join(said),
        expected="the same classes in the same order, so that a target means the same class in each part",
        fix=f"join them with cvkit.data.concat(first, second, …), which numbers the classes anew{again}",
    )

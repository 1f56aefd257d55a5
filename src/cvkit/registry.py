"""Names and what they stand for: one small mechanism for every thing that cvkit finds by name.

It is a leaf, like ``errors`` and ``seeding``: a room registers here what another room may ask for by name, so
that the two need not import one another (``data.from_folder`` asks for the presets of ``transforms``, and
``training.fit`` for the progress display of ``callbacks``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from cvkit.errors import ArgumentError, unknown_name

__all__ = ["Registry", "default_callbacks", "metric_libraries", "model_tools", "optimizer_libraries", "presets"]

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to objects that answers a wrong name with the nearest right ones.

    Args:
        kind: What the names name, in the singular; used in messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that files its argument under ``name``.

        Raises:
            ArgumentError: ``name`` is taken by something else.
        """

        def file(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ArgumentError(
                    f"{self.kind} {name!r} is registered already",
                    got=repr(entry),
                    expected="a new name",
                    fix=f"choose another name than {name!r}",
                )
            self._entries[name] = entry
            return entry

        return file

    def get(self, name: str) -> T:
        """Returns what ``name`` stands for.

        Raises:
            UnknownNameError: Nothing is registered under it.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, self._entries) from None

    def names(self) -> list[str]:
        """Returns the known names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


presets: Registry[Callable[..., Any]] = Registry("preset")
"""Transform presets by name, filled by :mod:`cvkit.transforms`."""

default_callbacks: Registry[Callable[[], Any]] = Registry("default callback")
"""Callbacks that ``fit`` adds by itself, filled by :mod:`cvkit.callbacks`."""

optimizer_libraries: Registry[Callable[..., Any]] = Registry("library of optimizers")
"""Builders ``(name, params, lr) -> Optimizer`` by the prefix of ``"timm:lion"``, filled by :mod:`cvkit.integrations`."""

metric_libraries: Registry[Callable[..., Any]] = Registry("library of metrics")
"""Builders of metrics by name, filled by :mod:`cvkit.integrations`."""

model_tools: Registry[Callable[..., Any]] = Registry("model tool")
"""What is done to models and known of them (``freeze``, ``unfreeze``, ``find_blocks``, ``arguments``), filled by
:mod:`cvkit.models`."""

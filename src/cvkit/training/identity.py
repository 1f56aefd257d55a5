"""What decides a run, as plain records: by which a continued run is compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

__all__ = ["Fact", "Facts", "GivenArguments", "Identity"]


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One thing that decides a run.

    Attributes:
        value: As text.
        parts: Names in ``override`` that let it change; none where nothing does.
        behind: Names of facts whose change explains a change of this one.
        planned: Whether it follows from the length of the run, which may change.
        moves: Whether training may change it, as the buffers of a loss: once it has, it is no longer compared.
    """

    value: str
    parts: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    planned: bool = False
    moves: bool = False


Facts: TypeAlias = dict[str, Fact]


@dataclasses.dataclass(frozen=True, slots=True)
class GivenArguments:
    """What of ``fit``'s arguments is not in the state as it came.

    Attributes:
        schedule: A name, a factory, or nothing.
        step: The user's own step, if there is one.
        options: The options of each optimizer's parameter groups, before a schedule has changed them.
    """

    schedule: Any
    step: Any
    options: Sequence[Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(slots=True)
class Identity:
    """What decides a run, taken down before anything has moved.

    Attributes:
        given: What of ``fit``'s arguments is not in the state as it came.
        facts: What decides the run; those that have turned out to be state are taken out.
        fingerprint: Those of them that are about the data, as older versions keep them.
        override: Names of what may differ from the run that is continued.
        overridden: What has differed so far, one line a change, with the step.
    """

    given: GivenArguments
    facts: Facts
    fingerprint: dict[str, Any]
    override: tuple[str, ...] = ()
    overridden: list[str] = dataclasses.field(default_factory=list)

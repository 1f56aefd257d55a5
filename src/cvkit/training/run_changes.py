"""What differs between a run and the one that it continues: refused, or meant to be so."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cvkit.errors import ArgumentError, CheckpointError, unknown_name
from cvkit.training import run_identity as facts_
from cvkit.training.callback import ask
from cvkit.training.identity import Fact, Facts, GivenArguments, Identity
from cvkit.training.optimizers import group_options
from cvkit.training.run_identity import PARTS, fingerprint
from cvkit.training.state import TrainState

__all__ = ["Changes", "begin", "check", "recorded", "remembered"]

WHOLE = {"accumulate", "data"}
"""Parts that change between epochs only: the place in the middle of one is counted in batches of the run before."""

_HASHES = {
    "data": "data: other files, labels or classes, or another shuffle, drop_last or weights",
    "val data": "val data: other files, labels or classes, or another shuffle, drop_last or weights",
    "files and labels": "files and labels: other names, labels or classes",
    "val files and labels": "val files and labels: other names, labels or classes",
    "file contents": "file contents: other than the manifest had",
    "val file contents": "val file contents: other than the manifest had",
}
"""How a change is told of what is only known by a hash."""


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What differs, all of it meant to be so by ``override``.

    Attributes:
        names: The names of the facts that differ.
        parts: The parts of the run that they belong to, as in ``override``.
        steps: Whether an epoch may have another number of updates than it had.
    """

    names: frozenset[str]
    parts: frozenset[str]
    steps: bool

    def of(self, owner: str) -> list[str]:
        """Returns the names of what differs in one owner: ``"lr"`` for ``"AdamW's lr"``."""
        return [name.removeprefix(f"{owner}'s ") for name in self.names if name.startswith(f"{owner}'s ")]


def begin(state: TrainState, override: object = (), schedule: Any = None, step: Any = None) -> Identity:
    """Takes down what decides the run.

    Args:
        state: As built, before a callback has started.
        override: Names of what may differ from the run that is continued.
        schedule: The schedule as ``fit`` got it.
        step: The user's own step, if there is one.

    Raises:
        ArgumentError: Not a sequence of names.
        UnknownNameError: A name that stands for nothing that is compared.
    """
    names = _checked(override, state)
    given = GivenArguments(schedule, step, known_options(state))
    found = facts_.gather(state, given)
    return Identity(given, found, fingerprint(state, found), names)


def _checked(override: object, state: TrainState) -> tuple[str, ...]:
    if isinstance(override, str) or not isinstance(override, Sequence):
        raise ArgumentError(
            "override cannot be used",
            got=repr(override),
            expected="a sequence of names of what may differ from the run that is continued",
            fix=f"pass override=({override!r},)" if isinstance(override, str) else 'pass e.g. override=("lr",)',
        )
    known = PARTS | facts_.option_names(state.optimizers)
    for name in override:
        if name not in known:
            raise unknown_name("name in override:", name, known)
    return tuple(override)


def recorded(state: TrainState) -> dict[str, Any]:
    """Returns what a checkpoint holds of what decides the run."""
    own = state.engine.identity = state.engine.identity or begin(state)
    own.facts = facts_.without_state(own.facts, state, own.given)
    settings = {name: fact.value for name, fact in own.facts.items() if name not in own.fingerprint}
    return {"data": own.fingerprint, "settings": settings, "overridden": own.overridden}


def check(state: TrainState, saved: Mapping[str, Any], source: object) -> Changes:
    """Compares a run with the one that it continues; what only one of them says is not compared.

    Args:
        state: The run, as freshly built.
        saved: The ``"training"`` part of a checkpoint.
        source: The file, for messages.

    Returns:
        What differs and may, by ``override``.

    Raises:
        CheckpointError: Something else differs, or something that cannot change in the middle of an epoch.
    """
    own = state.engine.identity = state.engine.identity or begin(state)
    then = {name: str(value) for name, value in saved["data"].items() if value is not None} | dict(saved["settings"])
    now = {name: fact.value for name, fact in own.facts.items()}
    planned = _length(then, (saved["epochs"], saved.get("max_steps"))) == _length(now, (state.epochs, state.max_steps))
    found = {
        name: fact
        for name, fact in own.facts.items()
        if name in then and _differs(name, then, now) and (planned or not fact.planned)
    }
    told = [name for name in found if not _explained(name, own.facts, found)]
    lines = tuple(_line(name, then[name], now[name]) + _changed_files(name, state) for name in told)
    refused = [fact for fact in found.values() if not set(fact.parts) & set(own.override)]
    parts = dict.fromkeys(part for fact in found.values() for part in fact.parts[:1])
    late = sorted(set(parts) & WHOLE) if saved["batch"] > 0 else []
    if refused or late:
        names = _enough(own.override, refused)
        never = any(not fact.parts for fact in refused)
        raise _refusal(source, lines, _fixes(names, late, saved["batch"], never=never))
    own.overridden = [*saved.get("overridden", ()), *(f"step {saved['step']}: {line}" for line in lines)]
    return Changes(frozenset(found), frozenset(parts), steps=bool({"batches", "accumulate"} & found.keys()))


def _enough(override: Sequence[str], refused: Sequence[Fact]) -> tuple[str, ...]:
    """Returns names that allow all that has been refused, and those that were given, none of them twice."""
    names = list(override)
    for fact in sorted(refused, key=lambda fact: len(fact.parts)):  # "optimizer" is enough for its options
        if fact.parts and not set(fact.parts) & set(names):
            names.append(fact.parts[0])
    return tuple(names)


def _length(values: Mapping[str, str], epochs: object) -> tuple[str | None, str | None, object]:
    """Returns what the number of updates of a whole run follows from."""
    return values.get("batches"), values.get("accumulate"), epochs


def _differs(name: str, then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    if name.endswith("'s code") and then[name].partition(" ")[0] != now[name].partition(" ")[0]:
        return False  # for another Python
    asked = "precision asked for"
    if name == asked or (name == "precision" and then.get(asked) == now[asked] == "auto"):
        return False  # "auto" on another device
    return then[name] != now[name]


def _explained(name: str, now: Facts, found: Container[str]) -> bool:
    """Whether a change follows from another one."""
    return any(one in found or (one in now and _explained(one, now, found)) for one in now[name].behind)


def _line(name: str, then: str, now: str) -> str:
    if name.endswith("'s code"):
        return f"{name} has changed"
    return _HASHES.get(name) or f"{name}: {then} then, {now} now"


def _changed_files(name: str, state: TrainState) -> str:
    """Returns which files a dataset knows to have had other content, for a message."""
    loader = {"file contents": state.train, "val file contents": state.val}.get(name)
    dataset: Any = getattr(loader, "dataset", None)
    found: list[str] = dataset.content_changes() if hasattr(dataset, "content_changes") else []
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f" (changed since it was first written: {', '.join(found[:5])}{more})" if found else ""


def _fixes(names: tuple[str, ...], late: Sequence[str], batch: int, *, never: bool) -> str:
    """Returns what to do about changes.

    Args:
        names: What ``override`` has to hold.
        late: Those of its parts that cannot change where the run stands, in the middle of an epoch.
        batch: How many batches of that epoch are done.
        never: Whether something differs that can never change.
    """
    if never:
        return "undo the change"
    if late:
        return (
            f"undo the change; or, if it is meant, let the epoch end first by the script as it was, for {' and '.join(late)} "
            f"cannot change {batch} batches into one; then pass override={names!r}"
        )
    return f"undo the change; or, if it is meant, pass override={names!r}"


def _refusal(source: object, lines: Sequence[str], fixes: str) -> CheckpointError:
    return CheckpointError(
        f"the run in {source} is another one than this",
        got="; ".join(lines),
        expected="the same data, transform, model, loss, optimizer, schedule and whatever else decides the run; the number of "
        "epochs, of workers, the device and the cache may change",
        fix=f"{fixes}; or start a new run in another directory from these weights: cvkit.load_weights(model, {str(source)!r})",
    )


# --- optimizers that are used again

_left: weakref.WeakKeyDictionary[Optimizer, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = (
    weakref.WeakKeyDictionary()
)
"""For an optimizer that has been trained in this process: its options before, and as the training has left them."""


def known_options(state: TrainState) -> list[list[dict[str, Any]]]:
    """Returns the options of every optimizer's groups as a new process would find them.

    A script that is run again in a notebook may pass an optimizer whose learning rate a schedule has changed meanwhile. The
    one that it began with counts, unless somebody has changed it since the training ended.
    """
    found = []
    for optimizer, now in zip(state.optimizers, state.engine.options, strict=True):
        before, after = _left.get(optimizer, ([], []))
        same = facts_.option_texts(after) == facts_.option_texts(now)
        found.append(before if before and (same or _is_scheduled(optimizer, state)) else now)
    return found


def _is_scheduled(optimizer: Optimizer, state: TrainState) -> bool:
    """Whether a callback steps a scheduler over the optimizer, which changes its options as soon as it is built."""
    held = [ask(one, "scheduler") for one in (state.engine.hooks.callbacks if state.engine.hooks is not None else ())]
    return any(isinstance(one, LRScheduler) and getattr(one, "optimizer", None) is optimizer for one in held)


@contextmanager
def remembered(state: TrainState) -> Iterator[None]:
    """Remembers, at the end of a training, what it has made of the options of the optimizers."""
    try:
        yield
    finally:
        if state.engine.identity is not None:
            for optimizer, before in zip(state.optimizers, state.engine.identity.given.options, strict=True):
                _left[optimizer] = [dict(group) for group in before], group_options(optimizer)

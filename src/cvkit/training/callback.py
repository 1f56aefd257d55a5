"""Callbacks: the protocol, and the dispatcher that checks them once and runs them in order."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from torch.optim.lr_scheduler import LRScheduler

from cvkit.errors import ArgumentError, unknown_name
from cvkit.training.monitor import Monitor
from cvkit.training.state import TrainState

__all__ = ["CHANGER", "HOOKS", "LAST", "OBSERVER", "Callback", "Hooks", "ask", "check"]

CHANGER, OBSERVER, LAST = 0, 1, 2

HOOKS = (
    "on_fit_start",
    "on_epoch_start",
    "on_batch_start",
    "on_gradients_ready",
    "on_batch_end",
    "on_validation_batch_end",
    "on_validation_end",
    "on_epoch_end",
    "on_exception",
    "on_fit_end",
)

Hook: TypeAlias = "Callable[[TrainState], None]"


class Callback:
    """Code of yours that runs at the events of a training run.

    Every method and attribute below has a default, so override only what you need. Deriving from this class is optional: any
    object with at least one of the ``on_…`` methods is a callback, and for whatever else it lacks the defaults of this class
    hold. A hook that you do not override costs nothing. What :meth:`state_dict` returns goes into the checkpoint and comes
    back on resume.

    Attributes:
        order: ``CHANGER`` (0, the default) runs before ``OBSERVER`` (1), and that before ``LAST`` (2); within one order
            callbacks run as listed. ``on_exception`` and ``on_fit_end`` run in reverse order.
        override: The name in ``fit(override=…)`` that lets :meth:`must_match` change.
        logs: Names that the callback puts into ``state.logs``, so that ``Checkpoint`` and ``EarlyStopping`` may monitor them.
        shows_progress: Whether the callback shows the progress of the run, so that ``fit`` adds no display of its own.
        first_rank_only: Whether the callback runs on rank 0 only, where several processes train together: true for those that
            write, draw or print. The others run on every rank, with the same ``state.logs``, so that they come to the same
            decisions; those on rank 0 alone must neither change the run nor run the model in training mode.
        monitor: The logged value by which the callback judges an epoch: the progress display marks the best one by it.
        scheduler: The learning-rate scheduler that the callback steps.
    """

    order: ClassVar[int] = CHANGER
    override: ClassVar[str] = "callbacks"
    logs: Sequence[str] = ()
    shows_progress: ClassVar[bool] = False
    first_rank_only: ClassVar[bool] = False
    monitor: Monitor | str | None = None
    scheduler: LRScheduler | None = None

    def on_fit_start(self, state: TrainState) -> None:
        """Before the first epoch; the state is complete, a resumed one is restored."""

    def on_epoch_start(self, state: TrainState) -> None:
        """Before the first batch of an epoch, or the first one after a resume."""

    def on_batch_start(self, state: TrainState) -> None:
        """Before a training batch goes through the model; ``state.batch`` is on the device."""

    def on_gradients_ready(self, state: TrainState) -> None:
        """Before an update: gradients are complete, unscaled and not yet clipped."""

    def on_batch_end(self, state: TrainState) -> None:
        """After a training batch, and after the update if there was one."""

    def on_validation_batch_end(self, state: TrainState) -> None:
        """After a validation batch."""

    def on_validation_end(self, state: TrainState) -> None:
        """After the validation of an epoch; ``state.logs`` holds its values."""

    def on_epoch_end(self, state: TrainState) -> None:
        """After an epoch; ``state.logs`` is its row in the history."""

    def on_exception(self, state: TrainState) -> None:
        """When ``state.exception`` ends the run; ``on_fit_end`` follows."""

    def on_fit_end(self, state: TrainState) -> None:
        """When the run is over, whatever ended it."""

    def elsewhere(self, directory: Path) -> Callback:
        """Returns a copy that writes into another directory, for a dry run; by default by its attribute ``directory``."""
        other = copy.deepcopy(self)
        if isinstance(getattr(other, "directory", None), Path):
            other.directory = directory  # type: ignore[attr-defined]
        return other

    def state_dict(self) -> dict[str, Any]:
        """Returns what must survive a resume: tensors and plain types."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned."""

    def must_match(self) -> dict[str, Any]:
        """Returns what of the callback decides the training, by name: plain values that a continued run must share.

        Asked for before the run starts. Nothing by default: a callback that only looks on may change.
        """
        return {}

    def load_changed(self, state: Mapping[str, Any], changed: Collection[str]) -> None:
        """Takes back a state after a change that ``fit(override=…)`` allows.

        By default :meth:`load_state_dict` gets all of it but what has changed.

        Args:
            state: What :meth:`state_dict` returned.
            changed: The names of the values of :meth:`must_match` that differ, and of the options of the optimizers that do.
        """
        self.load_state_dict({key: value for key, value in state.items() if key not in changed})

    def may_save(self, state: TrainState) -> bool:
        """Whether the run may be saved as it is now; asked before every checkpoint.

        One callback that returns ``False`` is enough: the file is not written, and those on disk stay as they are.
        """
        return True

    def checkpoints(self) -> list[Path] | None:
        """Returns the files that the run may continue from, the newest first; ``None`` if the callback keeps no checkpoints.

        ``fit`` asks before the run starts: ``resume=True`` continues from the newest sound one, and without ``resume`` a file
        that is there is an error, so that no run is overwritten.
        """
        return None

    def locked(self) -> AbstractContextManager[None]:
        """Returns a context that keeps other runs out of what the callback writes to, from before a resume until the end."""
        return nullcontext()

    @property
    def best_checkpoint(self) -> Path | None:
        """The file of the best epoch, for ``FitResult``; ``None`` if there is none."""
        return None

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest file, for ``FitResult``; ``None`` if there is none."""
        return None


def ask(callback: object, name: str) -> Any:
    """Returns an attribute or bound method of the callback protocol.

    Args:
        callback: Any callback, derived from :class:`Callback` or not.
        name: A name that :class:`Callback` has.

    Returns:
        The callback's own, or the default of :class:`Callback` where it does not have one.
    """
    default = inspect.getattr_static(Callback, name)
    bind = getattr(default, "__get__", None)
    return getattr(callback, name, bind(callback, type(callback)) if bind is not None else default)


class Hooks:
    """Runs callbacks: checked when built, free where nobody listens, torn down in reverse.

    Args:
        callbacks: The callbacks as the user listed them.

    Raises:
        ArgumentError: Something that is no callback: a class, or an object without a hook.
        UnknownNameError: A method named like a hook that is none.
    """

    epoch_start: Hook
    batch_start: Hook
    gradients_ready: Hook
    batch_end: Hook
    validation_batch_end: Hook
    validation_end: Hook
    epoch_end: Hook

    def __init__(self, callbacks: Sequence[Any]) -> None:
        for callback in callbacks:
            check(callback)
        self.callbacks = sorted(callbacks, key=lambda callback: int(ask(callback, "order")))
        for hook in HOOKS[1:-2]:
            setattr(self, hook.removeprefix("on_"), self._chain(hook))

    def _chain(self, hook: str) -> Hook:
        chain = [(callback, method) for callback in self.callbacks if (method := _implemented(callback, hook))]
        if not chain:
            return _nothing

        def run(state: TrainState) -> None:
            for callback, method in chain:
                try:
                    method(state)
                except BaseException as error:
                    error.add_note(_where(callback, hook, state))
                    raise

        return run

    @contextmanager
    def running(self, state: TrainState) -> Iterator[None]:
        """Starts every callback, and ends those that were started, in reverse, whatever happens in between.

        An error that happens while ending one is noted on the error that came first, and does not keep the
        others from being ended.
        """
        started: list[Any] = []
        try:
            for callback in self.callbacks:
                _call(callback, "on_fit_start", state)
                started.append(callback)
            yield
        except BaseException as error:
            state.exception = error
            _note(
                error, self._wind_down("on_exception", started, state) + self._wind_down("on_fit_end", started, state)
            )
            raise
        late = self._wind_down("on_fit_end", started, state)
        if late:
            _note(late[0], late[1:])
            raise late[0]

    def _wind_down(self, hook: str, started: Sequence[Any], state: TrainState) -> list[BaseException]:
        late: list[BaseException] = []
        for callback in reversed(started):
            try:
                _call(callback, hook, state)
            except BaseException as error:  # gathered, and raised by the caller once everybody has been told
                late.append(error)
        return late

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of every callback that has one, by class name."""
        states = {key: ask(one, "state_dict")() for key, one in self.keyed()}
        return {key: state for key, state in states.items() if state}

    def load_state_dict(
        self, states: Mapping[str, Any], changed: Callable[[str], Collection[str]] = lambda key: ()
    ) -> list[str]:
        """Gives every callback its state back.

        Args:
            states: What :meth:`state_dict` returned.
            changed: Says what has changed for the callback of a key, as :meth:`Callback.load_changed` wants to know it.

        Returns:
            The keys of states that nobody took: their callbacks are not there any more.
        """
        keyed = dict(self.keyed())
        for key, state in states.items():
            if key in keyed and (names := changed(key)):
                ask(keyed[key], "load_changed")(state, names)
            elif key in keyed:
                ask(keyed[key], "load_state_dict")(state)
        return [key for key in states if key not in keyed]

    @property
    def logs(self) -> list[str]:
        """The names that callbacks put into an epoch's row."""
        return [str(name) for callback in self.callbacks for name in ask(callback, "logs")]

    def may_save(self, state: TrainState) -> bool:
        """Asks every callback whether the run may be saved; all are asked, since one may have to look first."""
        answers = [ask(one, "may_save")(state) for one in self.callbacks]
        return all(answers)

    def keyed(self) -> Iterator[tuple[str, Any]]:
        """Yields the callbacks with the names that their states go under: those of their classes, numbered from the second."""
        seen: dict[str, int] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), callback


def _nothing(state: TrainState) -> None:
    """Stands for a hook that nobody implements."""


def _implemented(callback: object, hook: str) -> Hook | None:
    """Returns the bound method of a hook, or ``None`` where it is only inherited from :class:`Callback`."""
    method: Hook | None = getattr(callback, hook, None)
    if method is None or getattr(method, "__func__", None) is getattr(Callback, hook):
        return None
    return method


def _call(callback: object, hook: str, state: TrainState) -> None:
    method = _implemented(callback, hook)
    if method is not None:
        try:
            method(state)
        except BaseException as error:
            error.add_note(_where(callback, hook, state))
            raise


def _note(error: BaseException, late: Sequence[BaseException]) -> None:
    """Notes on an error those that came after it."""
    for one in late:
        error.add_note("and then:\n" + "".join(traceback.format_exception(one)))


def _where(callback: object, hook: str, state: TrainState) -> str:
    return f"in callback {type(callback).__name__}.{hook} (epoch {state.epoch + 1}, step {state.step})"


def check(callback: object) -> None:
    """Refuses what is no callback.

    Raises:
        ArgumentError: A class, or an object without a hook, or one whose ``logs`` are no names.
        UnknownNameError: A method named like a hook that is none.
    """
    if isinstance(callback, type):
        raise ArgumentError(
            f"callbacks got the class {callback.__name__}",
            expected="an instance",
            fix=f"write {callback.__name__}(…) in the list",
        )
    named = [name for name in dir(callback) if name.startswith("on_") and callable(getattr(callback, name))]
    for name in named:
        if name not in HOOKS:
            raise unknown_name(f"hook on callback {type(callback).__name__}:", name, HOOKS)
    logs = ask(callback, "logs")
    if isinstance(logs, str) or not all(isinstance(name, str) for name in logs):
        raise ArgumentError(
            f"{type(callback).__name__}.logs cannot be used",
            got=repr(logs),
            expected="the names that it puts into state.logs",
            fix=f"logs = ({logs!r},)" if isinstance(logs, str) else 'logs = ("my_value",)',
        )
    if not named:
        raise ArgumentError(
            "callbacks got something that is no callback",
            got=repr(callback),
            expected=f"an object with at least one of {', '.join(HOOKS)}",
            fix="derive it from cvkit.Callback",
        )

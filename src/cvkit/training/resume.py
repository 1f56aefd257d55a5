"""Where a run continues from: which file, and what to do when that file is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cvkit import seeding
from cvkit.calls import warn
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.serialization.checkpoint import load_checkpoint
from cvkit.training import run_changes, snapshot
from cvkit.training.callback import ask
from cvkit.training.distributed import first_of_all, is_first
from cvkit.training.state import TrainState

__all__ = ["find_checkpoints", "identify", "locked_directories", "restore_rng", "restore_run"]


def find_checkpoints(callbacks: Sequence[Any], resume: bool | str | Path) -> list[Path]:
    """Returns the files that the run may continue from, the newest first; none for a new run.

    Which files there are, callbacks answer by :meth:`cvkit.Callback.checkpoints`.

    Raises:
        ArgumentError: ``resume=True`` without such a callback.
        CheckpointError: A new run in a directory that holds one, or a path that is not there.
    """
    return first_of_all(lambda: _find(callbacks, resume))


def _find(callbacks: Sequence[Any], resume: bool | str | Path) -> list[Path]:
    """Finds them on rank 0, whose files count."""
    stores = [files for callback in callbacks if (files := ask(callback, "checkpoints")()) is not None]
    held = [path for files in stores for path in files]
    if resume is True:
        if not stores:
            raise ArgumentError(
                "resume=True does not know where to continue from",
                got=f"callbacks={[type(callback).__name__ for callback in callbacks]}",
                expected="a Checkpoint callback among them",
                fix='add Checkpoint("runs/a"), or pass the file: resume="runs/a/last.pt"',
            )
        return held
    if resume is not False and (not isinstance(resume, str | Path) or not str(resume)):
        raise ArgumentError(
            "resume cannot be used",
            got=repr(resume),
            expected="True, False, or the path of a checkpoint",
            fix="pass resume=True to continue the run in the Checkpoint callback's directory",
        )
    source = Path(resume) if resume is not False else None
    if source is not None and not source.is_file():
        raise CheckpointError(
            f"there is no checkpoint {source}",
            got="a directory" if source.is_dir() else "no such file",
            expected="a file that a Checkpoint callback wrote",
            fix=f"pass resume={str(source / 'last.pt')!r}, or resume=True with Checkpoint({str(source)!r})"
            if source.is_dir()
            else "check the path",
        )
    foreign = [path for path in held if source is None or path.parent.resolve() != source.parent.resolve()]
    if foreign:
        raise CheckpointError(
            f"{foreign[0].parent} already holds a run",
            got=", ".join(path.name for path in foreign),
            expected="a directory without checkpoints, for a new run",
            fix="pass resume=True to continue it, or choose another directory, or delete this one",
        )
    return [source] if source is not None else []


@contextmanager
def locked_directories(callbacks: Sequence[Any]) -> Iterator[None]:
    """Keeps other runs out of the directories that the callbacks write to.

    Raises:
        CheckpointError: Another run is at work there.
    """
    with ExitStack() as stack:
        for callback in callbacks:
            stack.enter_context(ask(callback, "locked")())
        yield


def identify(state: TrainState, resume: object, override: object, schedule: Any, step: Any) -> None:
    """Takes down what decides the run, where it may be continued or is a continuation.

    Raises:
        ArgumentError: An ``override`` that is no sequence of known names.
    """
    callbacks = state.engine.hooks.callbacks if state.engine.hooks is not None else ()
    if resume is not False or override or any(ask(callback, "checkpoints")() is not None for callback in callbacks):
        state.engine.identity = run_changes.begin(state, override, schedule, step)


def restore_run(state: TrainState, sources: Sequence[Path], seed: int | None = None) -> None:
    """Continues from the first file that is sound.

    Args:
        state: A state as freshly built.
        sources: The files, the newest first; none for a new run.
        seed: The seed that was asked for, if one was: it must be that of the run.

    Warns:
        CvkitWarning: A newer file is damaged; both are named.

    Raises:
        CheckpointError: None is sound, or the sound one does not fit the run.
    """
    damaged: list[tuple[Path, CheckpointError]] = []
    for source in sources:
        content = first_of_all(lambda source=source: _read(source))  # type: ignore[misc]
        if isinstance(content, CheckpointError):
            damaged.append((source, content))
            continue
        for path, refusal in damaged:
            first = str(refusal).splitlines()[0]
            if not is_first():
                continue
            warn(f"{first}: {path} is left out, the run continues from {source}")
        snapshot.restore(state, content, source)
        if seed is not None and seed != state.seed:
            raise CheckpointError(
                f"the run in {source} has another seed",
                got=f"seed={seed}",
                expected=f"seed={state.seed}, or none: a continued run goes on with its own",
                fix="leave seed as it was, or start a new run in another directory",
            )
        return
    if len(damaged) > 1:
        raise CheckpointError(
            f"no checkpoint of the run is sound: {', '.join(str(path) for path, _ in damaged)}",
            got=str(damaged[0][1]).splitlines()[1].removeprefix("  got: "),
            expected="at least one file that is complete to its last byte",
            fix=f"copy a sound one to {damaged[0][0]}, or delete these files to begin again",
        ) from damaged[0][1]
    if damaged:
        raise damaged[0][1]


def _read(source: Path) -> dict[str, Any] | CheckpointError:
    try:
        return load_checkpoint(source, map_location="cpu")
    except CheckpointError as error:
        return error


def restore_rng(state: TrainState) -> None:
    """Puts the random numbers where the saved run had them, whatever starting the callbacks has drawn.

    Called after the start of the run, and once more after the start of an epoch that is entered in the middle.
    """
    if state.engine.resume_rng is not None:
        seeding.restore(state.engine.resume_rng)

"""``fit(dry_run=True)``: two batches of everything, every callback, one save and one load, and nothing is left of it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvkit.module_state import unchanged, unwrap
from cvkit.serialization.checkpoint import load_checkpoint, save_checkpoint
from cvkit.training import snapshot
from cvkit.training.callback import LAST, Callback, ask
from cvkit.training.loaders import adapt
from cvkit.training.optimizers import ready_optimizers
from cvkit.training.state import FitResult, TrainState

__all__ = ["rehearse"]

BATCHES = 2


def rehearse(fit: Callable[..., FitResult], given: Mapping[str, Any]) -> FitResult:
    """Calls ``fit`` with the first batches of its loaders, for one epoch, in a temporary directory.

    Model, loss, optimizers, callbacks, loaders and random generators are afterwards as before.

    Args:
        fit: The function.
        given: Its arguments, by name.

    Returns:
        What it returned, with ``stop_reason="dry_run"`` and no checkpoints.
    """
    options = dict(given)
    loader_names = [name for name in ("train", "val") if options[name] is not None]
    real = [options[name] for name in loader_names]
    lengths = [options["steps_per_epoch"] if name == "train" else None for name in loader_names]
    adapters = [adapt(loader, length) for loader, length in zip(real, lengths, strict=True)]
    modules = [unwrap(one) for one in (options["model"], options["loss"]) if isinstance(one, nn.Module)]
    generators = [generator for one in adapters for generator in one.generators()]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cvkit-dry-run-")))
        for one in adapters:
            stack.enter_context(one.kept())
        stack.enter_context(
            unchanged(*modules, optimizers=ready_optimizers(options["optimizer"]), generators=generators)
        )
        options["metrics"] = copy.deepcopy(options["metrics"])
        copies = []
        for place, callback in enumerate(options["callbacks"]):
            stack.callback(_put_back(callback))
            copies.append(ask(callback, "elsewhere")(directory / str(place)))
        options["callbacks"] = [*copies, _SavesAndLoads(directory / "dry_run.pt")]
        options |= {
            name: _First(loader, len(one)) for name, loader, one in zip(loader_names, real, adapters, strict=True)
        }
        if type(options["warmup"]) is int and options["warmup"] > 0:  # updates of the real run, which this has not
            options["warmup"] = 0.5
        result = fit(
            **options
            | {
                "epochs": 1,
                "max_steps": None,
                "steps_per_epoch": None,
                "resume": False,
                "override": (),
                "dry_run": False,
            }
        )
    return dataclasses.replace(result, stop_reason="dry_run", best_checkpoint=None, last_checkpoint=None)


def _put_back(callback: Any) -> Callable[[], None]:
    """Returns what gives a callback, and what it holds (a scheduler), the state that it has now."""
    saved = copy.deepcopy(ask(callback, "state_dict")())
    attributes = dict(vars(callback)) if saved else {}

    def put_back() -> None:
        if saved:
            ask(callback, "load_state_dict")(saved)
            vars(callback).update(attributes)

    return put_back


class _First:
    """The first batches of a loader; all else is the loader's own."""

    def __init__(self, loader: Any, length: int) -> None:
        self._loader = loader
        self._length = length

    def __len__(self) -> int:
        return min(BATCHES, self._length)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self._loader), len(self))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._loader, name)
        return self._batches if name == "batches" else found

    def _batches(self, start: int = 0, device: torch.device | None = None) -> Iterator[Any]:
        return itertools.islice(self._loader.batches(start, device), len(self) - start)


class _SavesAndLoads(Callback):
    """Saves the run once, and reads the file again, which verifies it."""

    order = LAST

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_epoch_end(self, state: TrainState) -> None:
        """Saves and loads."""
        load_checkpoint(save_checkpoint(self.path, snapshot.capture(state)))

"""What the engine, the dispatcher and cvkit's own callbacks keep of a run, behind ``state.engine``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from cvkit.losses import Loss
from cvkit.training.distributed import World
from cvkit.training.identity import Identity
from cvkit.training.loaders import Adapter
from cvkit.training.meters import Meters

__all__ = ["Dispatcher", "Internals"]


class Dispatcher(Protocol):
    """What is asked of whoever runs the callbacks."""

    callbacks: list[Any]

    @property
    def logs(self) -> list[str]:
        """The names that callbacks put into an epoch's row."""

    def keyed(self) -> Iterator[tuple[str, Any]]:
        """Yields each callback with the name that its state is kept under."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of every callback that has one."""

    def load_state_dict(self, states: Mapping[str, Any], changed: Callable[[str], Collection[str]] = ...) -> list[str]:
        """Gives every callback its state back; returns the keys that nobody took."""

    def may_save(self, state: Any) -> bool:
        """Whether no callback objects to saving the run as it is now."""


@dataclass(eq=False)
class Internals:
    """What only the engine and cvkit's own callbacks use: names may change in any version.

    Attributes:
        loss_spec: The loss and what is known of it; ``state.loss_fn(outputs, targets)`` computes it.
        train_meters: Loss and metrics of the training batches.
        val_meters: Loss and metrics of the validation batches.
        meters: The meters of the phase under way.
        train: The training batches behind the one interface that the engine knows.
        val: The validation batches likewise.
        used_lrs: The learning rates that the last update was made with, of each parameter group of each optimizer, from that
            update until the next batch begins; ``None`` outside. ``state.lr`` and ``state.lrs`` know when to look here.
        options: The options of each optimizer's parameter groups as ``fit`` got them, before a schedule changed them.
        identity: What decides this run, by which a continued one is compared; ``None`` where nothing is saved or continued.
        schedule_offset: Steps that the schedules are ahead of ``step``, after a change of the number of updates an epoch has.
        first_epoch: The loader's epoch that the run's first one was: a loader that an earlier ``fit`` has used goes on with
            epochs that it has not served.
        weight: What the loss of the current batch counts for in a mean over batches: the number of samples, or, as a device
            scalar, that of the targets that count, or the sum of their class weights.
        compute: What computes the loss of a batch: the usual step, or the user's own.
        world: The ranks that train together; ``None`` where there is one process.
        hooks: The callbacks, checked and in order.
        epoch_rng: The random numbers that a foreign loader began this epoch with.
        resume_rng: The random numbers to continue with, once the callbacks have started.
        resumed: Whether the run was asked to continue what its directory holds (``resume``); nothing there is lost to it.
        group_open: Whether gradients of an unfinished group of ``accumulate`` batches are waiting.
        reported: Whether a loss that is not finite has been reported in this run.
        averaged: Averaged weights by name, where a callback keeps them: validated and saved in place of the model's own.
        epoch_began: When this epoch began, by ``time.perf_counter``.
        skipped_before: The samples that training and validation batches had to leave out before a resume, by their index, with
            the message of one of them.
        loose: Trainable parameters that no optimizer holds; their gradients are dropped at each update.
        group_weight: What the batches of the open group count for so far.
        group_size: What a full group is taken to count for.
    """

    loss_spec: Loss
    train_meters: Meters
    val_meters: Meters
    meters: Meters
    train: Adapter
    val: Adapter | None = None
    used_lrs: list[list[float | Tensor]] | None = None
    options: list[list[dict[str, Any]]] = field(default_factory=list)
    identity: Identity | None = None
    schedule_offset: int = 0
    first_epoch: int = 0
    weight: Tensor | float = 0
    compute: Any = None
    world: World | None = None
    hooks: Dispatcher | None = None
    epoch_rng: dict[str, Any] | None = None
    resume_rng: dict[str, Any] | None = None
    resumed: bool = False
    group_open: bool = False
    reported: bool = False
    averaged: dict[str, Tensor] | None = None
    epoch_began: float = 0.0
    skipped_before: tuple[dict[int, str], dict[int, str]] = field(default_factory=lambda: ({}, {}))
    loose: list[nn.Parameter] = field(default_factory=list)
    group_weight: Any = 0
    group_size: Any = 0

"""``GradualUnfreezing``: trains the head first, and more of the model as the epochs go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from cvkit.calls import warn
from cvkit.errors import ArgumentError, CheckpointError
from cvkit.registry import model_tools
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["GradualUnfreezing"]

What: TypeAlias = "str | int | Sequence[str]"


class GradualUnfreezing(Callback):
    """Freezes the model but for its head, and unfreezes more of it at the start of given epochs.

    Without a plan one more block is trained every ``every_epochs`` epochs, from the head down, until all are::

        GradualUnfreezing(every_epochs=2)
        GradualUnfreezing({3: "layer4", 6: ["layer3", "layer2"], 9: "all"})

    It does all the freezing itself: the model may come frozen or not. What is trained depends on the epoch alone, so a resume
    is exact, in the middle of an epoch too. Every parameter has to be in an optimizer from the start, as with one by name,
    by a factory over the parameters that ``fit`` gives it, or over :func:`cvkit.models.param_groups`; until it is unfrozen
    it has no gradient, so neither decay nor momentum reaches it.

    Source: Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018, section 3.3.

    Args:
        plan: What is unfrozen after how many epochs: the path of a submodule or parameter, several of them, a number of blocks
            from the end (as ``unfreeze(model, depth=…)``, the head counted), or ``"all"``.
        every_epochs: Epochs from one block to the next, where there is no plan; 1 by default.
        keep: Paths that are trained from the start; the head by default.

    Raises:
        ArgumentError: Both a plan and ``every_epochs``, an epoch below 0, or, when the run starts, parameters that no
            optimizer holds.
        UnknownNameError: When the run starts, a path that the model does not have.
        ModelError: When the run starts, a model without a head, and no ``keep``.
        CheckpointError: The run that is continued had another plan.
    """

    def __init__(
        self,
        plan: Mapping[int, What] | None = None,
        *,
        every_epochs: int | None = None,
        keep: str | Sequence[str] | None = None,
    ) -> None:
        if plan is not None and (not isinstance(plan, Mapping) or every_epochs is not None):
            raise ArgumentError(
                "GradualUnfreezing cannot use this plan",
                got=f"plan={plan!r}, every_epochs={every_epochs!r}",
                expected="a dict of epochs and paths, or every_epochs, not both",
                fix='GradualUnfreezing({3: "layer4", 6: "all"}) or GradualUnfreezing(every_epochs=2)',
            )
        for label, value, least in [("plan's epoch", epoch, 0) for epoch in plan or {}] + [
            ("every_epochs", 1 if every_epochs is None else every_epochs, 1)
        ]:
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(
                    f"GradualUnfreezing: {label} cannot be used",
                    got=repr(value),
                    expected=f"an integer of {least} or more",
                    fix="count the epochs that are finished by then: 1 is after the first",
                )
        self.plan = None if plan is None else {epoch: _listed(plan[epoch]) for epoch in sorted(plan)}
        self.every_epochs = every_epochs or 1
        self.keep = _listed(keep)
        self._due: dict[int, list[str] | int] = {}

    def on_fit_start(self, state: TrainState) -> None:
        """Checks the whole plan on the model, and leaves trained what is due by now."""
        model = state.model
        self._due = self._planned(model)
        self._freeze(model, max(self._due, default=0))
        held = {id(p) for one in state.optimizers for group in one.param_groups for p in group["params"]}
        missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
        self._freeze(model, state.epoch)
        if missing:
            raise ArgumentError(
                "no optimizer holds all that GradualUnfreezing is to train",
                got=f"{len(missing)} parameters outside, e.g. {', '.join(missing[:3])}",
                expected="every parameter in an optimizer from the start; frozen ones are left alone until they are unfrozen",
                fix="give the optimizer by name, or build it over model.parameters() or cvkit.models.param_groups(model, …)",
            )
        late = [epoch for epoch in self.plan or {} if epoch >= state.epochs]
        if late:
            warn(
                f"GradualUnfreezing: a run of {state.epochs} epochs never trains what is planned for after epoch "
                f"{', '.join(map(str, late))}"
            )

    def on_epoch_start(self, state: TrainState) -> None:
        """Unfreezes what is due with this epoch."""
        if state.epoch in self._due:
            _unfreeze(state.model, self._due[state.epoch])
            for optimizer in state.optimizers:
                _begin_momentum(optimizer)

    def _planned(self, model: nn.Module) -> dict[int, list[str] | int]:
        if self.plan is not None:
            return self.plan
        blocks = len(model_tools.get("find_blocks")(model))
        return {index * self.every_epochs: index + 1 for index in range(blocks)}

    def _freeze(self, model: nn.Module, epoch: int) -> None:
        """Freezes the model, and unfreezes what is planned up to an epoch."""
        model_tools.get("freeze")(model, keep=self.keep)
        for due, what in self._due.items():
            if due <= epoch:
                _unfreeze(model, what)

    def state_dict(self) -> dict[str, Any]:
        """Returns the plan, by which files of older versions are compared as well."""
        return self.must_match()

    def must_match(self) -> dict[str, Any]:
        """Returns the plan."""
        plan = None if self.plan is None else {str(epoch): what for epoch, what in self.plan.items()}
        return {"plan": plan, "every_epochs": self.every_epochs, "keep": self.keep}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compares the plan of the run that is continued with this one.

        Raises:
            CheckpointError: It was another.
        """
        own = self.state_dict()
        changed = [
            f"{key}={state[key]!r} then, {own[key]!r} now" for key in own if state.get(key, own[key]) != own[key]
        ]
        if changed:
            raise CheckpointError(
                "the run that is continued unfroze its model by another plan",
                got="; ".join(changed),
                expected="the same plan: the weights would be those of neither run",
                fix="give GradualUnfreezing what it had, or start a new run in another directory",
            )


def _listed(what: Any) -> Any:
    """Returns paths as a list; a number of blocks, or none, stays as it is."""
    if isinstance(what, str):
        return [what]
    return list(what) if isinstance(what, Sequence) else what


def _unfreeze(model: nn.Module, what: list[str] | int) -> None:
    unfreeze = model_tools.get("unfreeze")
    if what == ["all"]:
        unfreeze(model)
    elif isinstance(what, list):
        unfreeze(model, what)
    else:
        unfreeze(model, depth=what)


def _begin_momentum(optimizer: Optimizer) -> None:
    """Begins the momentum of what was unfrozen at zero, where torch's fused SGD cannot: beside others that are under way."""
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        trained = [p for p in group["params"] if p.requires_grad] if group["fused"] and group["momentum"] else []
        if any(optimizer.state[p].get("momentum_buffer") is not None for p in trained):
            for parameter in trained:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

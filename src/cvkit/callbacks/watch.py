"""``Watch``: which layers do not learn while the run trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.calls import warn
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["Watch"]


class Watch(Callback):
    """Warns, once a run, of layers whose gradient has been exactly 0 in every step of an epoch that was looked at.

    Such a layer has died, e.g. behind a ReLU whose inputs are all below 0, which may come of one update that was too large.
    What is frozen, or took no part in the epoch, is not meant. The gradients' sizes stay on the device until the epoch ends.

    Args:
        every_steps: How many updates lie between two looks; the first one of each epoch is looked at.
        least: How many looks it takes before anything is said.

    Raises:
        ArgumentError: A number below 1.
    """

    def __init__(self, *, every_steps: int = 10, least: int = 5) -> None:
        for name, value in (("every_steps", every_steps), ("least", least)):
            check_integer(name, value, at_least=1, fix=f"Watch({name}=5)")
        self.every_steps = every_steps
        self.least = least
        self._largest: dict[str, Tensor] = {}
        self._looks = 0
        self._warned = False

    def on_fit_start(self, state: TrainState) -> None:
        """Begins anew, unless the run goes on in the middle of an epoch."""
        if state.batch_index == 0:
            self._largest, self._looks = {}, 0

    def on_gradients_ready(self, state: TrainState) -> None:
        """Looks at the gradients, when it is time."""
        if ((state.batch_index - 1) // state.accumulate) % self.every_steps:
            return
        self._looks += 1
        for name, parameter in state.model.named_parameters():
            gradient = parameter.grad
            if parameter.requires_grad and gradient is not None and not gradient.is_sparse:
                size = gradient.detach().abs().amax() if gradient.numel() else gradient.new_ones(())
                before = self._largest.get(name)
                self._largest[name] = size if before is None else torch.maximum(before, size.to(before.device))

    def on_epoch_end(self, state: TrainState) -> None:
        """Warns of what has had no gradient in all of the epoch."""
        sizes, looks = {name: float(one) for name, one in self._largest.items()}, self._looks
        self._largest, self._looks = {}, 0
        dead = [name for name, size in sizes.items() if size == 0]
        if not dead or self._warned or looks < self.least:
            return
        self._warned = True
        names = ", ".join(dead[:5]) + (f" and {len(dead) - 5} more" if len(dead) > 5 else "")
        warn(
            f"CV904: no gradient has reached {names} in epoch {state.epoch + 1}: it was exactly 0\n"
            f"  got: a gradient of 0 for {len(dead)} of {len(sizes)} parameters in all {looks} updates looked at\n"
            "  expected: a gradient for every parameter that is trained\n"
            "  fix: a lower lr or clip_norm=1.0 if it was there before; else look for a ReLU that is always off"
        )

    def on_fit_end(self, state: TrainState) -> None:
        """Lets go of what is on the device."""
        self._largest, self._looks = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """Returns what this epoch has shown so far; waits for the device."""
        if not self._looks:
            return {}
        return {"largest": {name: float(one) for name, one in self._largest.items()}, "looks": self._looks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back."""
        self._largest = {name: torch.tensor(value) for name, value in state.get("largest", {}).items()}
        self._looks = int(state.get("looks", 0))

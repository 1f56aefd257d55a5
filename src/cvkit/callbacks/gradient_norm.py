"""``GradientNorm``: how large the gradients are, before they are clipped."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.calls import warn
from cvkit.metrics.async_scalars import AsyncScalars
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["GradientNorm"]

SPIKE = 100.0
"""How many times the median of its epoch a norm must be to be worth a warning."""


class GradientNorm(Callback):
    """Logs the 2-norm of the gradients of each epoch: its mean as ``gradient_norm``, its largest as ``gradient_norm_max``.

    It is taken over all parameters that the optimizers hold, where the gradients are complete and unscaled and not yet
    clipped, computed on the device and read later, so that nobody waits. Frozen parameters, and those without a gradient,
    have no part in it.

    With ``precision="fp16"`` a norm that is not finite is left out: the loss scaler leaves that update out, too, and goes on
    with a smaller scale. Anywhere else it is logged as it is.

    Warns, once a run, of an epoch in which no gradient reached a weight, and of a norm a hundred times the epoch's median
    where nothing clips it.

    Args:
        every_steps: How many updates lie between two measurements; the first one of each epoch is measured.
        layers: How many parts of the parameters' names make a group that is logged on its own, as ``gradient_norm/layer1``:
            1 for the model's children, 2 for theirs, 0 for none.

    Raises:
        ArgumentError: ``every_steps`` below 1, or ``layers`` below 0.
    """

    logs = ("gradient_norm", "gradient_norm_max")

    def __init__(self, *, every_steps: int = 10, layers: int = 0) -> None:
        for name, value, least in (("every_steps", every_steps, 1), ("layers", layers, 0)):
            check_integer(name, value, at_least=least, fix=f"GradientNorm({name}={max(least, 1)})")
        self.every_steps = every_steps
        self.layers = layers
        self._arriving = AsyncScalars()
        self._values: dict[str, list[float]] = {}
        self._names: dict[int, str] = {}
        self._warned: set[str] = set()

    def on_fit_start(self, state: TrainState) -> None:
        """Learns which parameter belongs to which group."""
        self._arriving = AsyncScalars()
        if state.batch_index == 0:
            self._values = {}
        self._warned = set()
        self._names = {id(parameter): name for name, parameter in state.model.named_parameters()} if self.layers else {}

    def on_gradients_ready(self, state: TrainState) -> None:
        """Measures, when it is time."""
        if ((state.batch_index - 1) // state.accumulate) % self.every_steps == 0:
            for name, norm in self._measured(state).items():
                self._arriving.put(name, norm)
            self._file(self._arriving.arrived())

    def _measured(self, state: TrainState) -> dict[str, Tensor]:
        """Returns the norms, on the device, the total under the empty name."""
        groups: dict[str, list[Tensor]] = {}
        for optimizer in state.optimizers:
            for parameters in optimizer.param_groups:
                for parameter in parameters["params"]:
                    if parameter.grad is not None:
                        groups.setdefault(self._group(parameter), []).append(parameter.grad)
        norms = {name: _norm(gradients) for name, gradients in groups.items()}
        if not self.layers:
            return norms
        first = state.runtime.device
        total = _norm([norm.to(first) for norm in norms.values()])
        return {"": total, **{f"/{name}": norm for name, norm in norms.items()}}

    def _group(self, parameter: Tensor) -> str:
        if not self.layers:
            return ""
        # the last part of a name is the parameter's own: weight, bias
        path = self._names.get(id(parameter), "others").split(".")
        return ".".join(path[: max(min(self.layers, len(path) - 1), 1)])

    def on_epoch_end(self, state: TrainState) -> None:
        """Logs the epoch's values."""
        self._file(self._arriving.all())
        scaled = state.runtime.scaler is not None
        for name, values in self._values.items():
            kept = [value for value in values if math.isfinite(value)] if scaled else values
            state.logs[f"gradient_norm{name}"] = math.fsum(kept) / len(kept) if kept else math.nan
            if not name:
                state.logs["gradient_norm_max"] = _largest(kept)
                self._judge(kept, state)
        self._values = {}

    def _judge(self, values: list[float], state: TrainState) -> None:
        """Warns, once a run, of what surely is a mistake and of what probably is one."""
        finite = [value for value in values if math.isfinite(value)]
        if values and not any(values):
            self._warn(
                "nothing",
                f"no gradient reached a weight in epoch {state.epoch + 1}: its norm is 0 in all {len(values)} steps looked at. "
                "Look for units that are all off (a ReLU after a large negative bias), a loss that does not depend on the "
                "outputs, or .detach() on the way",
            )
        elif finite and state.clip_norm is None:
            usual = statistics.median(finite)
            if usual > 0 and max(finite) > SPIKE * usual:
                self._warn(
                    "spike",
                    f"the gradient norm was {max(finite):.3g} in a step of epoch {state.epoch + 1}, and {usual:.3g} in its "
                    f"middle one: such a step can undo many others. fit(clip_norm={2 * usual:.1g}) would bound it",
                )

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn(text)

    def _file(self, points: list[tuple[Any, float]]) -> None:
        for name, value in points:
            self._values.setdefault(name, []).append(value)

    def on_fit_end(self, state: TrainState) -> None:
        """Lets go of what is still on the device."""
        self._arriving = AsyncScalars()

    def state_dict(self) -> dict[str, Any]:
        """Returns what this epoch has measured so far; waits for the device."""
        self._file(self._arriving.all())
        return {"values": {name: list(values) for name, values in self._values.items()}} if self._values else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes it back."""
        self._values = {name: list(values) for name, values in state.get("values", {}).items()}


def _norm(gradients: list[Tensor]) -> Tensor:
    """Returns the 2-norm of tensors of any layout as one number on the device."""
    dense = [one.coalesce().values() if one.is_sparse else one for one in gradients]
    return torch.nn.utils.get_total_norm([one.detach() for one in dense])


def _largest(values: list[float]) -> float:
    """Returns the largest value; one that is not finite is the largest there is."""
    return next((value for value in values if math.isnan(value)), max(values, default=math.nan))

"""``EMA``: an exponential moving average of the weights, which is what is validated and saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cvkit.arguments import check_number
from cvkit.errors import CheckpointError
from cvkit.training import schedule_free
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["EMA"]


class EMA(Callback):
    """Averages the weights over the updates; validation uses the average, and checkpoints and the result hold it.

    After each update ``average = d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))`` after ``n``
    updates, so that the first weights are soon forgotten. Buffers of floats, as of batch norms, are averaged too; all else is
    taken as it is. The weights that are trained are in the checkpoint beside the average, so that a resume is exact.

    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; the warm-up is TensorFlow's
    ``ExponentialMovingAverage(num_updates=…)``.

    Args:
        decay: How much of the average an update keeps, from 0 to below 1; 0.999 remembers about a thousand updates.

    Raises:
        ArgumentError: A decay out of range.
        CheckpointError: The run that is continued had another decay, or none (``fit(override=("callbacks",))`` allows it).
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_number("decay", decay, at_least=0, below=1, expected="a number from 0 to below 1", fix="EMA(decay=0.999)")
        self.decay = decay
        self.updates = 0
        self._average: dict[str, Any] = {}
        self._restored = False
        self._seen = 0

    def on_fit_start(self, state: TrainState) -> None:
        """Begins with the weights as they are, unless a resumed run has brought its average."""
        schedule_free.refuse(state, "EMA")
        if state.step == 0 or not self._restored:  # what it holds is of another run
            self.updates, self._average = 0, {}
        self._restored = False
        now = state.model.state_dict()
        if self._average and _shapes(self._average) != _shapes(now):
            raise CheckpointError(
                "the averaged weights do not fit the model",
                got=f"{len(self._average)} averages, {len(now)} weights",
                expected="one average of each weight, of its shape",
                fix="build the model that the run was made with",
            )
        average = self._average or {name: _copied(value) for name, value in now.items()}
        self._average = {
            name: value.to(now[name].device) if isinstance(value, Tensor) else value for name, value in average.items()
        }
        state.engine.averaged = self._average
        self._seen = state.step

    def on_batch_end(self, state: TrainState) -> None:
        """Averages after an update."""
        if state.step != self._seen:
            self._seen = state.step
            self._update(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Takes in an update that came after the last batch, where a loader has given fewer than it said."""
        self.on_batch_end(state)

    @torch.no_grad()
    def _update(self, state: TrainState) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = [], []
        for name, value in state.model.state_dict().items():
            if not isinstance(value, Tensor):  # what a module keeps beside its weights
                self._average[name] = _copied(value)
            elif value.is_floating_point():
                averages.append(self._average[name])
                values.append(value)
            else:
                self._average[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    def on_fit_end(self, state: TrainState) -> None:
        """Leaves the average in the model, which has been saved by now."""
        if state.engine.averaged is not None and state.exception is None:
            state.model.load_state_dict(self._average)
        state.engine.averaged = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the average, the number of updates in it, and its decay, which a continued run must share."""
        return {"updates": self.updates, "average": self._average, "decay": self.decay} if self._average else {}

    def must_match(self) -> dict[str, Any]:
        """Returns the decay."""
        return {"decay": self.decay}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back a saved average.

        Raises:
            CheckpointError: It was made with another decay.
        """
        if state.get("decay", self.decay) != self.decay:
            raise CheckpointError(
                "the run that is continued averaged its weights with another decay",
                got=f"decay={state['decay']} then, {self.decay} now",
                expected="the same decay: the average would be that of neither run",
                fix=f"EMA(decay={state['decay']}), or start a new run in another directory",
            )
        self.updates, self._average = state["updates"], dict(state["average"])
        self._restored = True


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _shapes(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in values.items()}

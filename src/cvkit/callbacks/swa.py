"""``SWA``: the plain average of the weights at the end of the last epochs, which is what is validated and saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cvkit.arguments import check_number
from cvkit.module_state import train_mode, unchanged, with_weights
from cvkit.training import schedule_free
from cvkit.training.callback import Callback
from cvkit.training.state import TrainState

__all__ = ["SWA"]


class SWA(Callback):
    """Averages the weights at the end of each epoch from ``start`` on, all alike; validation and checkpoints use the average.

    The statistics of batch norms are those of the model that they are in, so they are computed anew for the average, by one
    pass over the training batches without gradients: it takes about a third of an epoch. Before ``start`` the weights are the
    model's own. A learning rate that stays high suits it, e.g. ``schedule="constant"``. Those that are trained are in the
    checkpoint too, so a resume is exact; the same as ``torch.optim.swa_utils.AveragedModel`` and ``update_bn``.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018 (arXiv:1803.05407).

    Args:
        start: The share of the epochs that come before the first average, from 0 to below 1.
        update_statistics: Whether to compute the statistics of batch norms anew.

    Raises:
        ArgumentError: A start out of range, or, when the run starts, an optimizer that averages the weights itself.
        CheckpointError: The run that is continued averaged otherwise (``fit(override=("callbacks",))`` allows it).
    """

    def __init__(self, start: float = 0.75, *, update_statistics: bool = True) -> None:
        check_number("start", start, at_least=0, below=1, expected="a number from 0 to below 1", fix="SWA(start=0.75)")
        self.start = start
        self.update_statistics = update_statistics
        self.averaged = 0
        self._average: dict[str, Any] = {}
        self._restored = False
        self._taken = -1

    def on_fit_start(self, state: TrainState) -> None:
        """Begins without an average, unless a resumed run has brought its own."""
        schedule_free.refuse(state, "SWA")
        if state.step == 0 or not self._restored:  # what it holds is of another run
            self.averaged, self._average = 0, {}
        self._restored, self._taken = False, -1
        now = state.model.state_dict()
        self._average = {
            name: value.to(now[name].device) if isinstance(value, Tensor) else value
            for name, value in self._average.items()
        }
        state.engine.averaged = self._average or None

    def on_batch_end(self, state: TrainState) -> None:
        """Averages after the last batch of an epoch."""
        if state.batch_index == len(state.train):
            self._take(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Takes in an epoch whose loader has given fewer batches than it said; its validation has been without."""
        self._take(state)

    def _take(self, state: TrainState) -> None:
        if state.epoch < int(self.start * state.epochs) or self._taken == state.epoch:
            return
        self._taken = state.epoch
        now = state.model.state_dict()
        if not self._average:
            self._average = {name: _copied(value) for name, value in now.items()}
        learned = [name for name, _ in state.model.named_parameters()]
        torch._foreach_lerp_(
            [self._average[name] for name in learned], [now[name] for name in learned], 1 / (self.averaged + 1)
        )
        for name in now.keys() - set(learned):
            self._average[name] = _copied(now[name])
        self.averaged += 1
        norms = [(path, one) for path, one in state.model.named_modules() if _counts(one)]
        if norms and self.update_statistics:
            self._average |= _statistics(state, self._average, norms)
        state.engine.averaged = self._average

    def on_fit_end(self, state: TrainState) -> None:
        """Leaves the average in the model, which has been saved by now."""
        if state.engine.averaged is not None and state.exception is None:
            state.model.load_state_dict(self._average)
        state.engine.averaged = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the average, and of how many epochs it is."""
        return {"averaged": self.averaged, "average": self._average} if self._average else {}

    def must_match(self) -> dict[str, Any]:
        """Returns the start, and whether the statistics are computed anew."""
        return {"start": self.start, "update_statistics": self.update_statistics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back a saved average."""
        self.averaged, self._average = state["averaged"], dict(state["average"])
        self._restored = True


def _counts(module: nn.Module) -> bool:
    """Whether a module is a batch norm whose statistics are trained."""
    frozen = getattr(module, "cvkit_frozen", False)
    return isinstance(module, _BatchNorm) and module.track_running_stats and not frozen


def _statistics(state: TrainState, average: Mapping[str, Any], norms: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Returns the statistics of batch norms under averaged weights: plain means over the training batches of this epoch.

    The model, its own statistics, the random numbers and the loader are afterwards as before.
    """
    layers: list[Any] = [one for _, one in norms]
    momenta = [one.momentum for one in layers]
    batches = state.engine.train
    generators = batches.generators()
    epoch = state.epoch + state.engine.first_epoch
    with (
        torch.no_grad(),
        unchanged(state.model, scope="modes", generators=generators),
        batches.kept(),
        with_weights(state.model, average),
    ):
        train_mode(state.model)
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's word for the plain mean over all batches
        try:
            for batch in batches.open(epoch, device=state.runtime.device):
                with state.runtime.autocast():
                    state.engine.compute(state.model, batches.finish(batch, state.runtime), state)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
        return {f"{path}.{name}": _copied(value) for path, one in norms for name, value in one.named_buffers()}


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)

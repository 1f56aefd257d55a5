"""How far probabilities can be believed, and the temperature that mends them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError
from cvkit.metrics.async_scalars import merged_counts
from cvkit.metrics.core import metrics
from cvkit.outputs import OutputSpec, probabilities_of

__all__ = ["CalibrationError", "fit_temperature"]


@metrics.register("ece")
class CalibrationError:
    """The expected calibration error: how far confidence and accuracy lie apart, as a mean over bins of equal width.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (arXiv:1706.04599), equation 3.

    Args:
        bins: Number of bins of the confidence from 0 to 1.
        spec: What the outputs are; logits of classes by default.
    """

    name = "ece"
    higher_is_better = False

    def __init__(self, *, bins: int = 15, spec: OutputSpec | None = None) -> None:
        check_integer("bins", bins, fix="pass e.g. bins=15")
        self.bins = bins
        self.spec = spec or OutputSpec("classification", "softmax")
        self.sums: Tensor | None = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Takes in one batch of outputs ``(N, C, …)``, ``(N, 1)`` or ``(N,)`` and classes ``(N, …)``."""
        best, index = probabilities_of(outputs.detach().float(), self.spec).max(1)
        truth = (
            targets.argmax(1) if targets.ndim > index.ndim and targets.shape[1] > 1 else targets.reshape(index.shape)
        )
        right = (index == truth).double().flatten()
        sure = best.double().flatten()
        place = (sure * self.bins).ceil().clamp(1, self.bins) - 1  # (low, high], as in the paper
        inside = place == torch.arange(self.bins, device=place.device).unsqueeze(
            1
        )  # no bincount: it waits for the device
        seen = torch.stack([inside.sum(1).double(), (inside * sure).sum(1), (inside * right).sum(1)])
        self.sums = seen if self.sums is None else self.sums.to(seen.device) + seen

    def compute(self) -> float:
        """Returns the error, from 0 to 1; waits for the device."""
        if self.sums is None:
            return math.nan
        counts, sure, right = self.sums
        return float((sure - right).abs().sum() / counts.sum())

    def reset(self) -> None:
        """Forgets everything."""
        self.sums = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the running sums."""
        return {} if self.sums is None else {"sums": self.sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from saved sums."""
        self.sums = state.get("sums")

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Becomes what has counted everything that the metrics of these states have."""
        self.sums = merged_counts(states, "sums")


def fit_temperature(outputs: Tensor, targets: Tensor) -> float:
    """Returns what logits are to be divided by, so that their softmax says how sure the model may be.

    It minimises the cross entropy on data that the model was not trained on; predictions stay as they are. Source: Guo et al.,
    as above, section 4.2.

    Args:
        outputs: Logits ``(N, C)`` of validation samples.
        targets: Their classes ``(N,)``.

    Raises:
        ArgumentError: Tensors of other shapes.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or targets.shape != outputs.shape[:1]:
        raise ArgumentError(
            "fit_temperature cannot use these tensors",
            got=f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}",
            expected="logits (N, C) and classes (N,)",
            fix="collect the outputs of the model over the validation data, in evaluation mode",
        )
    logits, truth = outputs.detach().double(), targets.long()
    log = torch.zeros(
        (), dtype=torch.float64, device=logits.device, requires_grad=True
    )  # of the temperature: it stays above 0
    optimizer = torch.optim.LBFGS([log], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log.exp(), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log.detach().exp())

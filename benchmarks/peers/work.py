"""The work that every contender does, and the best loop a good engineer would write by hand for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

FEATURES, HIDDEN, CLASSES, BATCH = 32, 64, 10, 32
LR, MOMENTUM = 0.05, 0.9

Tracked: TypeAlias = "tuple[float | None, float | None]"
"""Mean loss and accuracy over the run, weighted by samples; ``None`` where a contender reports something else."""


class Batches(Dataset["tuple[Tensor, Tensor]"]):
    """Batches in memory, iterated once an epoch: a list would be taken for several loaders by some contenders."""

    def __init__(self, steps: int, distinct: int = 64) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(distinct * BATCH, FEATURES, generator=generator)
        targets = (inputs @ torch.randn(FEATURES, CLASSES, generator=generator)).argmax(1)
        pool = list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))
        # the same few batches again and again, so that a longer run does not fall out of the cache
        self.items: list[tuple[Tensor, Tensor]] = [pool[i % distinct] for i in range(steps)]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def make_model() -> nn.Sequential:
    """Returns the model, the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


@dataclass
class Work:
    """A fresh model and the batches it is trained on, once."""

    batches: Batches
    model: nn.Sequential = field(default_factory=make_model)

    def optimizer(self) -> torch.optim.Optimizer:
        """Returns the optimizer of every contender that takes one of torch's."""
        return torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM, fused=True)


Prepare: TypeAlias = "Callable[[Work, bool], Callable[[], Tracked]]"


def hand_written(work: Work, bar: bool = False) -> Callable[[], Tracked]:
    """The reference: loss and right answers stay on the device, and are summed and read once, at the end.

    Filing them in a list is 5 µs a step faster than adding to a sum on the device (``in_place``).
    """
    model, optimizer, batches = work.model, work.optimizer(), work.batches

    def run() -> Tracked:
        model.train()
        losses: list[Tensor] = []
        right: list[Tensor] = []
        sizes: list[int] = []
        for inputs, targets in batches:
            optimizer.zero_grad(set_to_none=True)
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            right.append((outputs.detach().argmax(1) == targets).sum())
            sizes.append(targets.shape[0])
        samples = sum(sizes)
        weights = torch.tensor(sizes, device=losses[0].device)
        loss_mean = (torch.stack(losses) * weights).sum() / samples
        return loss_mean.item(), torch.stack(right).sum().item() / samples

    return run

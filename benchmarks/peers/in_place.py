"""The hand-written loop as it is more often written: sums on the device, added to at each step."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from peers.work import Tracked, Work


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """Waits for the device once an epoch too; has no bar."""
    model, optimizer, batches = work.model, work.optimizer(), work.batches

    def run() -> Tracked:
        model.train()
        loss_sum = torch.zeros(())
        right = torch.zeros((), dtype=torch.int64)
        samples = 0
        for inputs, targets in batches:
            optimizer.zero_grad(set_to_none=True)
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            size = targets.shape[0]
            loss_sum.add_(loss.detach(), alpha=size)
            right += (outputs.detach().argmax(1) == targets).sum()
            samples += size
        return loss_sum.item() / samples, right.item() / samples

    return run

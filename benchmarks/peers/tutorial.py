"""The loop of most tutorials: every step waits for the device to show the running loss and accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from tqdm import tqdm

from peers.work import Tracked, Work


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """``tqdm`` with ``set_postfix`` each step, or disabled."""
    model, optimizer, batches = work.model, work.optimizer(), work.batches

    def run() -> Tracked:
        model.train()
        loss_sum, right, samples = 0.0, 0, 0
        shown = tqdm(batches, disable=not bar)
        for inputs, targets in shown:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = F.cross_entropy(outputs, targets)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * targets.size(0)
            right += (outputs.argmax(1) == targets).sum().item()
            samples += targets.size(0)
            if bar:
                shown.set_postfix(loss=loss_sum / samples, accuracy=right / samples)
        return loss_sum / samples, right / samples

    return run

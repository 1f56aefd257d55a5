"""What is measured at a point: learning rates, the gradients' norm, throughput, memory."""

from __future__ import annotations

import os
import sys
import time

import torch
from torch import Tensor

from cvkit.training.state import TrainState

__all__ = ["Speed", "gradient_norm", "memory", "rates"]

_MIB = 2**20


class Speed:
    """Samples a second, over the time that was spent on training batches."""

    __slots__ = ("_since", "samples")

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begins anew, so that what lies in between (a validation) does not count."""
        self.samples = 0
        self._since = time.perf_counter()

    def rate(self) -> float:
        """Returns samples a second since the last look, and begins anew."""
        rate = self.samples / max(1e-9, time.perf_counter() - self._since)
        self.restart()
        return rate


def rates(state: TrainState) -> dict[str, float]:
    """Returns the learning rate of the first parameter group, and where there are several that of each, as of the last update.

    A group is called by its ``name`` where it has one, else by its number (that of its optimizer first, with several).
    """
    optimizers, lrs = state.optimizers, state.lrs
    found = {"step/lr": lrs[0][0]}
    if len(optimizers) == 1 and len(lrs[0]) == 1:
        return found
    for number, (optimizer, used) in enumerate(zip(optimizers, lrs, strict=True)):
        for index, (group, lr) in enumerate(zip(optimizer.param_groups, used, strict=False)):  # a group may be new
            name = str(group.get("name", index))
            found[f"step/lr/{f'{number}.' if len(optimizers) > 1 else ''}{name}"] = lr
    return found


@torch.no_grad()
def gradient_norm(state: TrainState) -> Tensor | None:
    """Returns the 2-norm of all gradients that the optimizers hold, on the device; before they are clipped."""
    held = [p.grad for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]]
    dense = [one for one in held if one is not None and one.layout == torch.strided]
    # as torch.nn.utils.get_total_norm, without its sorting by device: here there is one
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(dense))) if dense else None


def memory(device: torch.device) -> dict[str, float]:
    """Returns what this process holds in memory, in MiB; on a CUDA device also what torch has allocated there, and its peak."""
    found = {}
    resident = _resident()
    if resident is not None:
        found["memory/process_MiB"] = resident / _MIB
    if device.type == "cuda":
        found["memory/cuda_MiB"] = torch.cuda.memory_allocated(device) / _MIB
        found["memory/cuda_peak_MiB"] = torch.cuda.max_memory_allocated(device) / _MIB
    return found


def _resident() -> int | None:
    """Returns the resident set in bytes; ``None`` where the system does not say. Elsewhere than on Linux it is the peak."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if sys.platform == "win32":
            return None
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

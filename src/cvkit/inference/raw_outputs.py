"""``predict``: the outputs of a module in hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.calls import warn
from cvkit.diagnosis.crash import explain_forward
from cvkit.errors import ArgumentError, CvkitError, DataError
from cvkit.module_state import evaluation_mode
from cvkit.training import Runtime
from cvkit.training.loader_checks import check_loader
from cvkit.training.loaders import Adapter, adapt
from cvkit.training.runtime import Precision
from cvkit.training.torch_workers import explain_worker_errors

__all__ = ["predict"]


def predict(
    model: nn.Module, data: Any, *, device: str | torch.device = "auto", precision: Precision = "auto"
) -> Tensor:
    """Computes the outputs of a module over data, in evaluation mode.

    Args:
        model: Any module; it is moved to the device, its mode is as before afterwards.
        data: A loader or any sized iterable of batches ``(inputs, targets)`` or ``inputs``; or one tensor ``(N, …)``, which is
            one batch. One that shuffles gives its own order.
        device: ``"auto"`` or a device.
        precision: As in ``fit``.

    Returns:
        The outputs of every sample in order, ``(N, …)``, on the CPU.

    Raises:
        PreflightError: The model fails on a batch; the layer or the line is named.
        ArgumentError: A model that is no module, data that cannot be iterated, or outputs that are no tensor.
        DataError: Data that gave no batch.
        DeviceError: A device or precision that is not there.

    Warns:
        CvkitWarning: Samples that the loader has left out (``on_error="skip"``) and that have no row.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            "model cannot be used",
            got=f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__,
            expected="an nn.Module",
            fix="cvkit.load(path).predict(…) predicts with a checkpoint",
        )
    batches = [data] if isinstance(data, Tensor) else data
    check_loader("data", batches)
    source = adapt(batches, name="data")
    runtime = Runtime(device, precision)
    model = runtime.prepare(model)
    outputs: list[Tensor] = []
    with evaluation_mode(model), torch.no_grad(), runtime.autocast(), explain_worker_errors():
        for inputs in _inputs(source, runtime):
            made = _outputs(model, inputs)
            if not isinstance(made, Tensor):
                raise ArgumentError(
                    f"the outputs of {type(model).__name__} cannot be put together",
                    got=f"{type(made).__name__} from a batch",
                    expected="a tensor (N, …)",
                    fix="wrap the model in a module that returns the one that is wanted",
                )
            outputs.append(made.cpu())
    if skipped := source.skipped:
        warn(
            f"{len(skipped)} samples have no row in the outputs because they cannot be read, e.g. "
            f"{next(iter(skipped.values())).splitlines()[0]}"
        )
    if not outputs:
        raise DataError(
            "data gave no batch",
            got=f"an iteration of {type(batches).__name__} that ends at once",
            expected=f"{len(batches)} batches, as its length says",
            fix="it is probably used up, or none of its samples can be read",
        )
    return torch.cat(outputs)


def _inputs(source: Adapter, runtime: Runtime) -> Iterator[Any]:
    """Yields the inputs of each batch on the device; a loader of cvkit's brings them there ahead of time."""
    for batch in source.iterate(runtime.device):
        ready = source.finish(batch, runtime)
        yield ready[0] if isinstance(ready, tuple | list) else ready


def _outputs(model: nn.Module, inputs: Any) -> Any:
    """Runs a model; where it fails, says at which layer or line, as ``fit`` does."""
    try:
        return model(inputs)
    except (CvkitError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        found = explain_forward(model, inputs)
        if found is None:
            raise
        raise found from error

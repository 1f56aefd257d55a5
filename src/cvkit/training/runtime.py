"""Device, precision, memory format and compilation: one code path for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from cvkit.errors import DeviceError, ModelError, unknown_name
from cvkit.module_state import unwrap
from cvkit.training.distributed import own_device

__all__ = ["Precision", "Runtime"]

Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]

_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Runtime:
    """Where and how a model runs.

    Args:
        device: ``"auto"`` (CUDA, else MPS, else CPU), or a device by name, e.g. ``"cuda:1"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast; weights stay fp32), or ``"auto"``: bf16 on GPUs that
            have it, else fp32.
        compile: Whether the model goes through ``torch.compile``, with a graph for each size of batch. Checkpoints never
            show it.

    Attributes:
        device: The ``torch.device``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        asked_precision: What was asked for, which may be ``"auto"``.
        module: What is run: the model, compiled if asked for.
        scaler: The loss scaler, which only fp16 needs.

    Raises:
        DeviceError: A device or precision that this machine does not have.
    """

    def __init__(
        self, device: str | torch.device = "auto", precision: Precision = "auto", *, compile: bool = False
    ) -> None:
        self.device = _find_device(device)
        self.precision = _find_precision(precision, self.device)
        self.asked_precision = precision
        self.compile = compile
        self.module: Any = None
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def __repr__(self) -> str:
        return f"Runtime(device={str(self.device)!r}, precision={self.precision!r}, compile={self.compile})"

    def prepare(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device, in place, and returns it unwrapped.

        A 4-D model goes to ``channels_last`` on CUDA, where convolutions are faster in it.

        Raises:
            ModelError: The model has parameters without a shape yet (lazy layers).
        """
        model = unwrap(model)
        for name, parameter in model.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ModelError(
                    f"the parameter {name} has no shape yet",
                    got=f"a lazy layer in {type(model).__name__}",
                    expected="a model whose parameters exist, so that an optimizer can hold them",
                    fix="run one batch through it before fit: model(inputs)",
                )
        model.to(self.device)
        if self.device.type == "cuda" and any(p.ndim == 4 for p in model.parameters()):
            model.to(memory_format=torch.channels_last)
        self.module = _compiled(model) if self.compile else model
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context in which forward and loss run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def place(self, batch: Any) -> Any:
        """Moves every tensor in a batch (tuples, lists and dicts of any depth) to the device, without waiting."""
        if isinstance(batch, Tensor):
            return batch.to(self.device, non_blocking=True)
        if isinstance(batch, dict):
            return {key: self.place(value) for key, value in batch.items()}
        if isinstance(batch, tuple) and hasattr(batch, "_fields"):
            return type(batch)(*(self.place(value) for value in batch))
        if isinstance(batch, list | tuple):
            return type(batch)(self.place(value) for value in batch)
        return batch


def _compiled(model: nn.Module) -> nn.Module:
    """Returns the model through ``torch.compile``, so that a continued run computes what an undisturbed one does.

    One graph for each size of batch: left to itself torch makes one for all sizes from the second on, and which is the second
    depends on where a run was continued; another graph rounds otherwise. And beyond its limit of eight graphs torch goes on
    without compiling, which a continued run would reach later.
    """
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _GRAPHS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * _GRAPHS)
    module: Any = torch.compile(model, dynamic=False)
    return cast(nn.Module, module)


_GRAPHS = 256
"""How many graphs of one function torch may make."""


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Asks torch for deterministic kernels inside, and puts its settings back afterwards."""
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used; see torch.use_deterministic_algorithms
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def _find_device(asked: str | torch.device) -> torch.device:
    if asked == "auto":
        if torch.cuda.is_available():
            return own_device()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise unknown_name("device", asked, ["auto", "cpu", "cuda", "cuda:0", "mps"]) from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise unknown_name("device", asked, ["auto", "cpu", "cuda", "cuda:0", "mps"])
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cpu": True, "cuda": (device.index or 0) < count, "mps": torch.backends.mps.is_available()}
    if not there[device.type]:
        built = f", built for CUDA {torch.version.cuda}" if torch.version.cuda else ", built without CUDA"
        raise DeviceError(
            f"the device {str(device)!r} is not there",
            got=f"torch {torch.__version__}{built} sees {count} CUDA devices and {'an' if there['mps'] else 'no'} MPS device",
            expected="a device of this machine",
            fix='pass device="auto" or device="cpu", or install a driver and a torch that fit the device',
        )
    return device


def _find_precision(asked: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    if asked not in _PRECISIONS:
        raise unknown_name("precision", asked, _PRECISIONS)
    has_bf16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    if asked == "auto":
        return "bf16" if device.type == "cuda" and has_bf16 else "fp32"
    if asked == "bf16" and not has_bf16:
        raise DeviceError(
            f"bf16 is not there on {torch.cuda.get_device_name(device)}",
            got=f"compute capability {torch.cuda.get_device_capability(device)}",
            expected="8.0 (Ampere) or newer",
            fix='pass precision="fp16" or "auto"',
        )
    return asked

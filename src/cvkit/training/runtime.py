"""Device, precision, memory format and compilation: one code path for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from cvkit.errors import DeviceError, ModelError, unknown_name
from cvkit.training import feed

if TYPE_CHECKING:
    from cvkit.training.state import TrainState

__all__ = ["Precision", "Runtime", "Step", "train_mode", "unwrap"]

Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
Step: TypeAlias = "Callable[[nn.Module, Any, TrainState], Tensor | tuple[Tensor, Any, Any]]"

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
        loose: Trainable parameters that no optimizer holds; their gradients are dropped at each update.

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
        self.loose: list[nn.Parameter] = []
        self._group_weight: Any = 0
        self._group_size: Any = 0

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

    def finished(self, loader: Any, batch: Any) -> Any:
        """Turns a batch as the loader gives it into one as the model gets it: placed, then the batch transform."""
        if self.device.type != "cpu":
            batch = self.place(batch)
        return loader.finish(batch) if feed.can_skip(loader) else batch

    def feed(self, loader: Any, state: TrainState) -> Iterator[Any]:
        """Yields the batches of the epoch under way, on the device, from the state's position on, and clocks the wait."""
        start = state.batch_index if state.training else 0
        own = feed.can_skip(loader)
        if state.training and start == 0 and not own:
            state.epoch_rng = feed.random_state(loader)
        random = state.epoch_rng if state.training else None
        # a validation has the run's own epochs, so that its numbers compare with those of another run
        epoch = state.epoch + (state.first_epoch if state.training else 0)
        source = feed.open_epoch(loader, epoch, start, random, self.device)
        ready = not own and self.device.type == "cpu"  # asked once: a device's type takes time to tell
        clock = time.perf_counter
        began = clock()
        for batch in feed.until_lost(source, state):
            if not ready:
                if state.training:  # a loader may have left out a batch none of whose samples could be read
                    state.batch_index = getattr(batch, "place", state.batch_index)
                batch = self.finished(loader, batch)
            state.data_seconds += clock() - began
            yield batch
            began = clock()

    def forward(self, step: Step, batch: Any, state: TrainState) -> Tensor:
        """Runs a step on a batch and files what came of it into the state.

        Returns:
            The loss, with its graph.
        """
        if self.precision == "fp32":
            result = step(self.module, batch, state)
        else:
            with self.autocast():
                result = step(self.module, batch, state)
        if isinstance(result, tuple):
            loss, outputs, state.targets = result
            state.outputs = outputs.detach() if isinstance(outputs, Tensor) else outputs
            state.samples = feed.samples_in(outputs)
        else:
            loss, state.outputs, state.targets = result, None, None
            state.samples = feed.samples_in(batch)
        state.loss = loss.detach()
        state.weight = weight = state.loss_spec.weigh(state.targets, state.samples)
        meters = state.meters
        if state.loss_spec.reduction == "sum":
            meters.losses.add(state.loss, 1, state.samples)
        else:
            meters.losses.add_mean(state.loss, weight)
        if state.outputs is not None:
            for metric in meters.metrics.values():
                metric.update(state.outputs, state.targets)
        return loss

    def forward_backward(self, step: Step, batch: Any, state: TrainState) -> None:
        """Runs a step on a batch and adds its gradients to those of the group it belongs to."""
        loss = self.forward(step, batch, state)
        if state.accumulate > 1 and state.loss_spec.reduction == "mean":
            loss = self._weighted(loss, state)
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        state.batch_index += 1

    def _weighted(self, loss: Tensor, state: TrainState) -> Tensor:
        """Scales a batch's mean by its share of a full group, as if every batch were as large as the group's first."""
        weight: Any = state.weight
        if isinstance(weight, Tensor):
            weight = weight.to(loss.dtype)
        if isinstance(self._group_size, int) and self._group_size == 0:
            self._group_size = _not_zero(weight) * state.accumulate
        self._group_weight = self._group_weight + weight
        weighted: Tensor = loss * (weight / self._group_size)
        return weighted

    def finish_gradients(self, state: TrainState) -> None:
        """Makes the gradients of a group what those of one large batch would be, and takes the loss scale off."""
        if self.scaler is not None:
            for optimizer in state.optimizers:
                self.scaler.unscale_(optimizer)
        if state.accumulate == 1:
            return
        size, weight = self._group_size, self._group_weight
        self._group_size = self._group_weight = 0
        if isinstance(weight, Tensor) or size != weight:
            gradients = [p.grad for p in _held(state) if p.grad is not None]
            torch._foreach_mul_(gradients, size / _not_zero(weight))

    def update(self, state: TrainState) -> None:
        """Clips, steps every optimizer and schedule, clears the gradients and counts the update."""
        if state.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(_held(state), state.clip_norm)
        state.keep_lrs()
        for optimizer in state.optimizers:
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
                optimizer._opt_called = True  # type: ignore[attr-defined]  # else schedules warn of a skipped step
            optimizer.zero_grad()
        for parameter in self.loose:
            parameter.grad = None
        if self.scaler is not None:
            self.scaler.update()
        for schedule in state.schedules:
            schedule.step()
        state.group_open = False
        state.step += 1


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


def _not_zero(weight: Any) -> Any:
    """Returns a weight that can be divided by: where it is 0 no target counts, and the gradients are zeros."""
    return weight.where(weight != 0, 1) if isinstance(weight, Tensor) else weight


def _held(state: TrainState) -> list[Tensor]:
    """Returns what the optimizers hold now; callbacks may have added to it."""
    return [p for optimizer in state.optimizers for group in optimizer.param_groups for p in group["params"]]


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the module inside ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def train_mode(model: nn.Module) -> None:
    """Puts a model into training mode, all but what :func:`cvkit.models.freeze` has frozen.

    A frozen batch norm in training mode would still move its statistics.
    """
    model.train()
    for module in model.modules():
        if getattr(module, "cvkit_frozen", False):
            module.eval()


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
            return torch.device("cuda")
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

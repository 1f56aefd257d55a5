"""``summary``: what a model is made of, traced: shapes, parameters and multiply-adds, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cvkit.errors import ArgumentError
from cvkit.models.parts import inside
from cvkit.module_state import evaluation_mode

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Layer", "Summary", "summary"]

Shape: TypeAlias = Any
"""A tensor's shape as a tuple; tuples and dicts of them where a layer takes or gives several."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a :class:`Summary`.

    Attributes:
        name: Its path in the model; ``""`` for the model itself.
        kind: The name of its class.
        level: How deep it lies, 0 for the model itself.
        input_shape: Shape of what it got when it was first called, the batch included; ``None`` if it never was.
        output_shape: Shape of what it gave; ``None`` if it was not called or failed.
        parameters: Parameters of its own, those of layers listed below it not counted, nor those listed above already.
        trainable: How many of them are trained.
        multiply_adds: Multiplications with an addition that it made itself, in all its calls.
        calls: How often it was called.
        failed: Whether the forward pass failed in it.
    """

    name: str
    kind: str
    level: int
    input_shape: Shape
    output_shape: Shape
    parameters: int
    trainable: int
    multiply_adds: int
    calls: int
    failed: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """What :func:`summary` returns; ``print`` shows it as a table.

    Attributes:
        model: The name of the model's class.
        layers: The layers in the order in which they were called, then those that never were.
        parameters: All parameters, shared ones counted once.
        trainable: How many of them are trained.
        multiply_adds: Multiply-adds of one forward pass, as far as it came.
        input_shape: Shape of each input, the batch included.
        output_shape: Shape of the output; ``None`` if the forward pass failed.
        error: What made the forward pass fail, or ``None``.
        failed_layer: The path of the layer in which it failed, or ``None``.
    """

    model: str
    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    input_shape: tuple[Shape, ...]
    output_shape: Shape
    error: str | None = None
    failed_layer: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as dicts, lists, tuples and plain types."""
        return asdict(self)

    def table(self, depth: int | None = None) -> str:
        """Returns the table as text.

        Args:
            depth: Levels shown; layers below are counted with the one that holds them. All by default.

        Raises:
            ArgumentError: A depth below 0.
        """
        if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
            raise ArgumentError(
                "table: depth cannot be used", got=repr(depth), expected="0 or more", fix="depth=1 shows the blocks"
            )
        lines: list[tuple[str, ...]] = [("layer", "kind", "input", "output", "parameters", "multiply-adds")]
        lines += [self._line(layer, depth) for layer in self.layers if depth is None or layer.level <= depth]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        shown = [
            "  ".join(
                [*(c.ljust(w) for c, w in zip(line[:4], widths)), *(c.rjust(w) for c, w in zip(line[4:], widths[4:]))]
            )
            for line in lines
        ]
        shown.insert(1, "─" * sum(widths, 2 * len(widths) - 2))
        frozen = self.parameters - self.trainable
        total = f"{self.parameters:,} parameters, {self.trainable:,} trainable, {frozen:,} frozen"
        shown += [shown[1], f"{total}; {_grand(self.multiply_adds)} multiply-adds"]
        if self.error is not None:
            shown.append(f"the forward pass failed in {self.failed_layer or self.model}: {self.error}")
        return "\n".join(line.rstrip() for line in shown)

    def _line(self, layer: Layer, depth: int | None) -> tuple[str, ...]:
        counted = [layer]
        if layer.level == depth:
            counted = [one for one in self.layers if inside(one.name, layer.name)]
        parameters, macs = sum(one.parameters for one in counted), sum(one.multiply_adds for one in counted)
        trained = sum(one.trainable for one in counted)
        name = "  " * layer.level + (layer.name.rpartition(".")[2] or self.model)
        many = f" ×{layer.calls}" if layer.calls > 1 else ""
        came = (
            _shown(layer.output_shape)
            if layer.output_shape is not None
            else "unfinished"
            if layer.calls
            else "not called"
        )
        mark = "" if trained == parameters else " frozen" if trained == 0 else " part frozen"
        return (
            name,
            layer.kind + many,
            _shown(layer.input_shape),
            "FAILED" if layer.failed else came,
            f"{parameters:,}{mark}" if parameters else "",
            f"{macs:,}" if macs else "",
        )

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__


def summary(model: nn.Module, input_size: Sequence[Any] | Tensor, *, batch_size: int = 1) -> Summary:
    """Traces a forward pass in evaluation mode and lists every layer with shapes, parameters and multiply-adds.

    Nothing is computed: the pass runs on torch's ``meta`` device, over stand-ins for the weights. Only a model that needs the
    values (or fails) is run for real, over copies of its buffers. Weights, statistics, modes, random numbers and hooks are as
    before afterwards. Where the forward pass fails, the summary shows how far it came, with the error and the layer.

    Multiply-adds are those of matrix multiplications, convolutions (transposed ones too) and attention, as
    ``torch.utils.flop_counter`` counts operations, halved; norms, activations and biases are not counted, as is usual.

    Example::

        print(cvkit.models.summary(model, (3, 224, 224)))
        print(cvkit.models.summary(model, (3, 224, 224)).table(depth=1))

    Args:
        model: Any module.
        input_size: The shape of one sample, e.g. ``(3, 224, 224)``, or a list of them for a model of several inputs. A tensor
            in place of a shape stands for itself, batch included, e.g. for indices.
        batch_size: Samples in the batch.

    Returns:
        The summary.

    Raises:
        ArgumentError: Something that is no shape.
    """
    model = _unwrapped(model)
    inputs = _inputs(model, input_size, batch_size)
    trace = _run(model, inputs, "meta")
    if trace.error is not None and not any(one.is_meta for one in (*model.parameters(), *model.buffers())):
        trace = _run(model, inputs, None)  # its shapes may depend on values, or it mixes in tensors that are no buffers
    parameters = list(model.parameters())
    return Summary(
        model=type(model).__name__,
        layers=tuple(_listed(model, trace)),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=sum(call.own for call in trace.calls.values()),
        input_shape=tuple(tuple(one.shape) for one in inputs),
        output_shape=trace.calls[""].output_shape if "" in trace.calls else None,
        error=None if trace.error is None else " ".join(f"{type(trace.error).__name__}: {trace.error}".split())[:500],
        failed_layer=trace.failed,
    )


@dataclass(slots=True)
class _Call:
    """What was seen of one layer."""

    input_shape: Shape
    output_shape: Shape = None
    calls: int = 0
    own: int = 0


@dataclass(slots=True)
class _Trace:
    """What was seen of one forward pass."""

    calls: dict[str, _Call] = field(default_factory=dict)
    error: Exception | None = None
    failed: str | None = None


def _unwrapped(model: nn.Module) -> nn.Module:
    """Returns the module inside ``torch.compile`` or ``DataParallel``."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            "summary cannot look at this", got=repr(model), expected="an nn.Module", fix="pass the module itself"
        )
    inner = getattr(model, "_orig_mod", None)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = model.module
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def _inputs(model: nn.Module, given: Any, batch_size: int) -> list[Tensor]:
    """Returns the inputs on the meta device, or as they were given."""
    single = isinstance(given, Tensor) or (isinstance(given, Sequence) and all(isinstance(one, int) for one in given))
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    found = []
    for one in [given] if single else given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        sizes = isinstance(one, Sequence) and all(isinstance(side, int) and side > 0 for side in one)
        if not isinstance(one, Tensor) and (not sizes or isinstance(one, str) or batch_size < 1):
            raise ArgumentError(
                "summary: input_size cannot be used",
                got=f"{given!r}, batch_size={batch_size!r}",
                expected="the shape of one sample, or a list of shapes",
                fix="pass e.g. (3, 224, 224), without the batch",
            )
        made = one if isinstance(one, Tensor) else torch.empty((batch_size, *one), dtype=dtype, device="meta")
        found.append(made)
    return found


def _run(model: nn.Module, inputs: Sequence[Tensor], device: str | None) -> _Trace:
    """Sends inputs through a model, on the meta device or for real, and sees what can be seen."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, for a second

    trace = _Trace()
    stack: list[tuple[str, int, int]] = []
    state, arguments = _stand_ins(model, inputs, device)
    counter = FlopCounterMode(display=False)
    with ExitStack() as around:
        for context in (torch.no_grad(), evaluation_mode(model), _plain_attention()):
            around.enter_context(context)
        around.enter_context(_watched(model, trace, stack, counter))
        if device is not None:
            around.enter_context(torch.device(device))
        try:
            with counter:
                functional_call(model, state, tuple(arguments))
        except Exception as error:  # whatever it is, it is told in the summary
            trace.error = error
            trace.failed = stack[-1][0] if stack else ""
    return trace


def _stand_ins(
    model: nn.Module, inputs: Sequence[Tensor], device: str | None
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Returns what a forward pass may write to without harm: empty stand-ins, or copies of the buffers and random inputs."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if device is not None:
        return {name: one.detach().to(device) for name, one in named.items()}, [one.to(device) for one in inputs]
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    place = next((one.device for one in named.values()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.rand(one.shape, generator=generator).to(place, one.dtype) if one.is_meta else one.to(place)
        for one in inputs
    ]
    return buffers, values


@contextmanager
def _watched(
    model: nn.Module, trace: _Trace, stack: list[tuple[str, int, int]], counter: FlopCounterMode
) -> Iterator[None]:
    """Hooks every layer; what is on the stack has begun and not ended: its name, the count then, and its children's share."""
    names = {id(module): name for name, module in model.named_modules()}

    def begin(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        name = names[id(module)]
        call = trace.calls.setdefault(name, _Call(_shape(arguments[0] if len(arguments) == 1 else arguments)))
        call.calls += 1
        stack.append((name, counter.get_total_flops(), 0))

    def end(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        name, before, below = stack.pop()
        made = counter.get_total_flops() - before
        if stack:
            above, start, share = stack.pop()
            stack.append((above, start, share + made))
        call = trace.calls[name]
        call.own += (made - below) // 2  # a multiply-add is two operations
        if call.output_shape is None:
            call.output_shape = _shape(output)

    handles = []
    try:
        for module in model.modules():
            handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps attention off its fused path, whose operations are not counted and whose layers are not called."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _listed(model: nn.Module, trace: _Trace) -> Iterator[Layer]:
    """Yields the layers as they were called, and after them those with parameters that were not.

    What a layer uses without calling it (the projections inside an attention) counts as its own.
    """
    called = trace.calls
    modules = dict(model.named_modules())
    above = {name: _above(name) for name in modules}
    parents = {one for name in called for one in above[name]}
    leaves = {name for name in called if name not in parents}
    missed = [
        name
        for name, module in modules.items()
        if name not in called
        and next(module.parameters(recurse=False), None) is not None
        and not any(one in leaves for one in above[name])
    ]
    around = {one for name in missed for one in above[name]} | set(missed)
    rest = [name for name in modules if name in around and name not in called]
    counted: set[int] = set()
    for name in [*called, *rest]:
        module, call = modules[name], called.get(name, _Call(None))
        own = {id(p): p for p in module.parameters(recurse=name in leaves) if id(p) not in counted}
        counted |= set(own)
        yield Layer(
            name=name,
            kind=type(module).__name__,
            level=name.count(".") + 1 if name else 0,
            input_shape=call.input_shape,
            output_shape=call.output_shape,
            parameters=sum(p.numel() for p in own.values()),
            trainable=sum(p.numel() for p in own.values() if p.requires_grad),
            multiply_adds=call.own,
            calls=call.calls,
            failed=trace.error is not None and name == trace.failed,
        )


def _above(name: str) -> list[str]:
    """Returns the paths of what holds a module, the model itself first."""
    parts = name.split(".") if name else []
    return [".".join(parts[:end]) for end in range(len(parts))]


def _shape(value: Any) -> Shape:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {str(key): _shape(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_shape(one) for one in value)
    return type(value).__name__


def _shown(shape: Shape) -> str:
    if shape is None:
        return ""
    if isinstance(shape, dict):
        return ", ".join(f"{key}: {_shown(one)}" for key, one in shape.items())
    if isinstance(shape, tuple) and shape and not all(isinstance(side, int) for side in shape):
        return ", ".join(_shown(one) for one in shape[:3]) + (", …" if len(shape) > 3 else "")
    return str(shape)


def _grand(count: int) -> str:
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:,.0f} {unit}"
    return f"{count:,}"

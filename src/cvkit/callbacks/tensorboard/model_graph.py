"""A model's graph, recorded while it runs: every function it calls, in which module, and what flows between them.

Nothing is traced or compiled, so control flow, outputs of any kind and inputs by keyword are no obstacle; what is drawn is what
was run. Scripted modules run outside of Python and cannot be seen; a module that gives something from nowhere is one node.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from cvkit.module_state import evaluation_mode

__all__ = ["Call", "Node", "eager", "first_sample", "record", "to_proto", "undisturbed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """What a model was called with.

    Attributes:
        args: By position.
        kwargs: By keyword.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclasses.dataclass(slots=True)
class Node:
    """One node of a graph.

    Attributes:
        name: Its path: the modules it is in, and what it is.
        kind: The function, or ``Input``, ``Output``, ``Parameter``.
        inputs: The names of the nodes that it takes tensors from.
        shapes: The shape of each tensor that it gives.
        note: What else is known of it.
    """

    name: str
    kind: str
    inputs: list[str]
    shapes: list[tuple[int, ...]]
    note: str = ""


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Lets a model be run on the side: in evaluation mode, without gradients, leaving no trace.

    Modes, buffers and all global random numbers are as before afterwards.
    """
    with evaluation_mode(model, scope="buffers"), torch.no_grad():
        yield


def eager() -> AbstractContextManager[Any]:
    """Returns a context in which nothing compiles, parts of models that are compiled themselves included."""
    # where the compiler, which takes seconds to import, has not been imported nothing can be compiled
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def record(model: nn.Module, call: Call) -> list[Node]:
    """Runs a model once, on the side, and returns its graph.

    Args:
        model: The module, not compiled.
        call: What to run it with.

    Returns:
        The nodes, each after those that it takes something from.
    """
    recorder = _Recorder(model)
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model))
        stack.enter_context(eager())
        for path, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                continue
            stack.callback(module.register_forward_pre_hook(recorder.enter(path, module), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(recorder.leave).remove)
        for name, tensor in _named([*call.args, *call.kwargs.values()]):
            recorder.add_input(name, tensor)
        with recorder:
            outputs = model(*call.args, **call.kwargs)
    recorder.add_unseen(type(model).__name__, [node.name for node in recorder.nodes if node.kind == "Input"], outputs)
    for name, tensor in _named(outputs):
        recorder.add_output(name, tensor)
    return recorder.nodes


def first_sample(call: Call) -> Call:
    """Returns the call with the first sample of its batch alone, which draws the same graph for less."""
    sizes = [tensor.shape[0] for _, tensor in _named([*call.args, *call.kwargs.values()]) if tensor.ndim]
    if not sizes:
        return call

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:1] if value.ndim and value.shape[0] == sizes[0] else value
        if isinstance(value, dict):
            return {key: cut(one) for key, one in value.items()}
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return type(value)(cut(one) for one in value)
        return value

    return Call(cut(call.args), cut(dict(call.kwargs)))


class _Recorder(TorchFunctionMode):
    """Notes every function that is called on tensors, under the module it is called in."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._parameters = {id(value): (name, value) for name, value in model.named_parameters()}
        # weak: what is in between may be freed as soon as the model has done with it
        self._source: Any = WeakIdKeyDictionary()
        self._scopes: list[
            tuple[str, str, str]
        ] = []  # path in the model, name in the graph, what the module says of itself
        self._entered: list[tuple[int, list[str]]] = []
        self._taken: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = [tensor for _, tensor in _named(result)]
        if not made and getattr(func, "__name__", "") == "__setitem__":
            made = [args[0]]
        if made:
            sources = [self._origin(tensor) for _, tensor in _named([*args, *kwargs.values()])]
            if any(sources) or not all(tensor in self._source for tensor in made):
                self._add(_kind(func), [one for one in sources if one], made)
        return result

    def add_input(self, name: str, tensor: Tensor) -> None:
        self._add("Input", [], [tensor], name=f"input{name}")

    def add_output(self, name: str, tensor: Tensor) -> None:
        origin = self._origin(tensor)
        self._add("Output", [origin] if origin else [], [tensor], name=f"output{name}")

    def add_unseen(self, kind: str, given: list[str], result: Any) -> None:
        """Adds one node for all tensors of a result that come from nowhere."""
        unseen = [tensor for _, tensor in _named(result) if tensor not in self._source]
        if unseen:
            self._add(kind, given, unseen)

    def enter(self, path: str, module: nn.Module) -> Any:
        """Returns the hook that opens a module's scope."""
        kind = getattr(module, "original_name", type(module).__name__)
        said = module.extra_repr()

        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            outer, above, _ = self._scopes[-1] if self._scopes else ("", "", "")
            relative = path[len(outer) + 1 if outer else 0 :] if path.startswith(outer) else path
            name = "/".join([*filter(None, [above]), *filter(None, relative.split("."))])
            self._scopes.append((path, self._free(f"{name}[{kind}]") if name else "", said))
            given = [self._origin(tensor) for _, tensor in _named([*args, *kwargs.values()])]
            self._entered.append((len(self.nodes), [one for one in given if one]))

        return hook

    def leave(self, module: nn.Module, args: Any, result: Any) -> None:
        """Closes a module's scope; what is in it and could not be seen becomes one node."""
        _, given = self._entered.pop()
        self.add_unseen(type(module).__name__, given, result)
        self._scopes.pop()

    def _add(self, kind: str, inputs: list[str], made: list[Tensor], *, name: str = "") -> None:
        scope, said = (self._scopes[-1][1], self._scopes[-1][2]) if self._scopes else ("", "")
        name = self._free(name or f"{scope}/{kind}".lstrip("/"))
        self.nodes.append(Node(name, kind, list(dict.fromkeys(inputs)), [tuple(one.shape) for one in made], said))
        for tensor in made:
            self._source[tensor] = name

    def _origin(self, tensor: Tensor) -> str | None:
        """Returns the node that a tensor comes from; a parameter becomes one where it is first used."""
        if tensor not in self._source and id(tensor) in self._parameters:
            scope = f"{self._scopes[-1][1]}/" if self._scopes else ""
            self._add("Parameter", [], [tensor], name=scope + self._parameters[id(tensor)][0].rpartition(".")[2])
        found: str | None = self._source.get(tensor)
        return found

    def _free(self, name: str) -> str:
        """Returns a name that nothing else has."""
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return name if count == 1 else self._free(f"{name}.{count - 1}")


def _named(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields every tensor in nested lists, tuples, dicts and dataclasses, with a name for where it stands."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _named(one, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _named(one, f"{name}.{index}" if len(value) > 1 else name)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _named(getattr(value, field.name), f"{name}.{field.name}")


def _kind(func: Any) -> str:
    """Returns the name of a function; of a property's getter that of the property."""
    name = str(getattr(func, "__name__", type(func).__name__))
    if name == "__get__":
        return str(getattr(func.__self__, "__name__", "attribute"))
    return name.strip("_") or name


def to_proto(nodes: list[Node]) -> Any:
    """Returns the nodes as the ``GraphDef`` that TensorBoard draws."""
    from tensorboardX.proto.attr_value_pb2 import AttrValue
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboardX.proto.versions_pb2 import VersionDef

    made = []
    for node in nodes:
        shapes = [TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape]) for shape in node.shapes]
        attributes = {"_output_shapes": AttrValue(list=AttrValue.ListValue(shape=shapes))}
        if node.note:
            attributes["module"] = AttrValue(s=node.note.encode())
        made.append(NodeDef(name=node.name, op=node.kind, input=node.inputs, attr=attributes))
    return GraphDef(node=made, versions=VersionDef(producer=22))

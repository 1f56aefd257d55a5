"""One batch through the model, watched: what each layer was given, what came out, and where it failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.errors import CvkitError

__all__ = ["LayerCall", "Trace", "watched"]


@dataclass(slots=True, eq=False)
class LayerCall:
    """One call of a layer that has no layers inside.

    Attributes:
        path: The layer's name in the model.
        module: The layer.
        args: What it was given, detached.
        output: What it returned, detached; ``None`` where it failed, or returned no tensor.
    """

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    output: Tensor | None = None


@dataclass(slots=True, eq=False)
class Trace:
    """What came of one batch.

    Attributes:
        stage: How far it has come: ``"forward"``, ``"loss"``, ``"backward"``.
        error: What ended it, if anything has.
        layers: The calls of layers, in order; emptied once nobody looks at them any more.
        entered: The innermost module that was entered and has not returned, with what it was given;
            ``None`` outside of the model.
        returned: What each call of the model returned, with its graph.
        outputs: What is compared with the targets, with its graph; of a custom step what it returns, if it does.
        targets: What it is compared with.
        loss: The loss, with its graph.
        gradients: The gradient of each trainable parameter of the model by name, ``None`` for one without; empty where there
            was no backward pass.
        weight: What the batch counts for: 0 where no target counts.
        switched: Whether the model is in another mode after the step than before it.
        early: Names of parameters that had a gradient before the backward pass: the step has run one itself.
    """

    stage: str = "forward"
    error: Exception | None = None
    layers: list[LayerCall] = field(default_factory=list)
    entered: LayerCall | None = None
    returned: list[Any] = field(default_factory=list)
    outputs: Any = None
    targets: Any = None
    loss: Any = None
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    weight: Any = 1
    switched: bool = False
    early: list[str] = field(default_factory=list)

    def attempt(self, stage: str, work: Callable[[], None]) -> bool:
        """Does one stage, and keeps what it raises.

        Returns:
            Whether it has come through.
        """
        self.stage = stage
        try:
            with warnings.catch_warnings():  # torch's own words on a broadcast; ours say more
                warnings.simplefilter("ignore")
                work()
        except CvkitError:
            raise
        except Exception as error:
            self.error = error
            return False
        return True


@contextmanager
def watched(model: nn.Module, trace: Trace) -> Iterator[None]:
    """Notes the calls of the model and of its layers inside."""
    open_calls: list[LayerCall] = []

    def enter(path: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        open_calls.append(LayerCall(path, module, tuple(_detached(one) for one in args)))
        trace.entered = open_calls[-1]

    def leave(module: nn.Module, output: Any) -> None:
        while open_calls and open_calls[-1].module is not module:  # an error that the user's code has caught
            open_calls.pop()
        if not open_calls:
            return
        call = open_calls.pop()
        if not any(True for _ in module.children()):
            call.output = output.detach() if isinstance(output, Tensor) else None
            trace.layers.append(call)
        trace.entered = open_calls[-1] if open_calls else None

    def keep(output: Any) -> None:
        trace.returned.append(output)

    handles = [model.register_forward_hook(lambda module, args, output: keep(output))]
    for path, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            handles.append(
                module.register_forward_pre_hook(
                    lambda module, args, path=path: enter(path, module, args), prepend=True
                )
            )
            handles.append(module.register_forward_hook(lambda module, args, output: leave(module, output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value

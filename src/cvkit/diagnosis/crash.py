"""A step that fails: which operation, in which line of the user's file, on what, and what to do."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from cvkit.diagnosis.finding import Finding
from cvkit.diagnosis.lines import user_line
from cvkit.diagnosis.mending import expects, mend
from cvkit.diagnosis.probe import Probe, Settings, Side
from cvkit.diagnosis.remedies import remedy
from cvkit.diagnosis.shapes import shape
from cvkit.diagnosis.table import announce
from cvkit.diagnosis.trace import LayerCall, Trace, watched
from cvkit.errors import PreflightError
from cvkit.losses import resolve_loss

__all__ = ["explain", "explain_forward"]

announce("CV801", "error", "A layer refuses what it is given")
announce("CV802", "error", "The loss, the metrics or a custom step fails")
announce("CV803", "error", "The backward pass fails")
announce("CV804", "error", "The model's own forward fails")
announce("CV751", "error", "The epoch's last batch, which is smaller, fails")


def explain(probe: Probe, side: Side, trace: Trace, batch: Any) -> Finding:
    """Returns what is to be said of the error that ended a trace.

    Args:
        probe: What is looked at.
        side: The side whose batch failed.
        trace: What came of it; it has an error.
        batch: The batch.
    """
    error: Exception = trace.error or RuntimeError("nothing")
    said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    last = trace is side.last_trace
    which = f"the {'last' if last else 'first'} batch of {side.name}"
    call = trace.entered if trace.stage == "forward" else None
    where = user_line(error)
    if call is not None and type(call.module).__module__.startswith("torch.nn"):
        what, got, expected, fix, code = _layer(probe, call, said, which, batch, error)
    else:
        what, code = _place(probe, trace, call, which)
        got = f"{said}; the batch is {shape(batch)}"
        expected = "a batch that goes through model, loss and metrics"
        fix = remedy(error, trace, batch) or (
            f"mend the line {where.split(', in ')[0]}" if where else _own(probe, trace)
        )
    if last:
        code = "CV751"
        fix += "; the last batch of an epoch is smaller: drop_last=True leaves it out" if "drop_last" not in fix else ""
    return Finding(code, "error", what, got=got, expected=expected, where=where, fix=fix)


def explain_forward(model: nn.Module, inputs: Any) -> PreflightError | None:
    """Runs a model that has failed once more, watched, and returns what is to be said of it; ``None`` if it now works.

    Args:
        model: The model, in the mode in which it has failed.
        inputs: What it has failed on.
    """
    side = Side("data", None, batch=inputs)
    probe = Probe(model, resolve_loss("mse"), False, side, None, Settings(), cast(Any, None))
    with watched(model, side.trace):
        if side.trace.attempt("forward", lambda: model(inputs)):
            return None
    finding = explain(probe, side, side.trace, inputs)
    error = PreflightError(str(finding))
    error.findings = (finding,)
    return error


def _layer(
    probe: Probe, call: LayerCall, said: str, which: str, batch: Any, error: Exception
) -> tuple[str, str, str, str, str]:
    path, module, args = call.path, call.module, call.args
    return (
        f"the forward fails in layer {path or type(module).__name__!r} ({type(module).__name__}) on {which}",
        f"{said}; the layer was given {shape(args[0]) if args else 'nothing'}",
        expects(module, args),
        mend(path, module, args, probe.model, batch)
        or remedy(error, None, batch)
        or f"give the layer {expects(module, args)}",
        "CV801",
    )


def _place(probe: Probe, trace: Trace, call: LayerCall | None, which: str) -> tuple[str, str]:
    """Returns what failed, and its code."""
    if trace.stage == "backward":
        return f"the backward fails on {which}", "CV803"
    if call is not None:
        name = f" of {call.path!r}" if call.path else ""
        return f"the forward{name} ({type(call.module).__name__}) fails on {which}", "CV804"
    if probe.own_step:
        return f"your step fails on {which}", "CV802"
    if trace.stage == "forward":  # the call itself: a forward with other arguments
        return f"the forward ({type(probe.model).__name__}) fails on {which}", "CV804"
    return f"the loss {probe.loss.name} or a metric fails on {which}", "CV802"


def _own(probe: Probe, trace: Trace) -> str:
    if trace.stage == "loss":
        kind = "module" if isinstance(probe.loss.function, nn.Module) else "function"
        return f"compare what this {kind} takes with outputs {shape(trace.outputs)} and targets {shape(trace.targets)}"
    return "give the model's forward one argument, the inputs; or pass step=… that calls it with what it takes"

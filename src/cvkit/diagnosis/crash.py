"""A step that fails: which operation, in which line of the user's file, on what, and what to do."""

from __future__ import annotations

from typing import Any

from cvkit.diagnosis.finding import Finding
from cvkit.diagnosis.mending import expects, mend
from cvkit.diagnosis.probe import Probe, Side
from cvkit.diagnosis.shapes import shape
from cvkit.diagnosis.table import announce
from cvkit.diagnosis.trace import Trace

__all__ = ["explain"]

announce("CV801", "error", "A layer refuses what it is given")
announce("CV802", "error", "The loss, the metrics or a custom step fails")
announce("CV803", "error", "The backward pass fails")


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
    if trace.stage != "forward" or trace.entered is None:
        return Finding(
            "CV803" if trace.stage == "backward" else "CV802",
            "error",
            f"the {trace.stage} fails on the first batch of {side.name}",
            got=f"{said}; the batch is {shape(batch)}",
            expected="a batch that goes through model, loss and metrics",
            fix="see the traceback above for the line",
        )
    path, module, args = trace.entered.path, trace.entered.module, trace.entered.args
    return Finding(
        "CV801",
        "error",
        f"the forward fails in layer {path or type(module).__name__!r} ({type(module).__name__}) on the first batch of "
        f"{side.name}",
        got=f"{said}; the layer was given {shape(args[0]) if args else 'nothing'}",
        expected=expects(module, args),
        fix=mend(path, module, args, probe.model, batch),
    )

"""``Profile``: what the time of a step goes to, on one page, and a trace of a few steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from cvkit import streams
from cvkit.arguments import check_integer
from cvkit.streams import Moment
from cvkit.training import engine
from cvkit.training.callback import OBSERVER, Callback
from cvkit.training.state import TrainState

__all__ = ["Profile"]

PHASES = {
    "data": "waiting for the next batch",
    "transfer": "bringing it to the device",
    "transform": "its batch transform",
    "forward": "model, loss and metrics",
    "backward": "gradients",
    "update": "clipping, optimizer, schedule",
    "callbacks": "their hooks in a step",
    "loop": "what is left",
}
"""What the time of a step is divided into, in order."""

BETWEEN = "between epochs"
"""What goes on between the last batch of an epoch and the first of the next."""

OPERATORS = 10
"""So many of the dearest operators are on the page."""


class Profile(Callback):
    """Finds out what the time goes to, over some batches of the run, and changes nothing in it.

    First some batches are timed without a profiler, whose own cost would count: the page says what waiting for data, transfer,
    forward, backward, update and callbacks took, in milliseconds and percent, and what to do about it. On a GPU the times are
    the device's own, between events in its queue; nobody waits for it until the end. Then ``torch.profiler`` records a few
    more batches, with the phases as ranges.

    Written to the directory, where ``STEP`` is the step at which the timing began: ``step-STEP.txt``, the page, and
    ``step-STEP.pt.trace.json.gz``, the trace, which https://ui.perfetto.dev opens, and TensorBoard with its plugin
    ``torch-tb-profiler``. In a run too short for all that, fewer batches are looked at.

    Args:
        directory: Where both files go; made if missing.
        wait: How many batches go by before: the first ones start workers and choose kernels.
        batches: How many batches are timed.
        trace: How many batches are recorded after those; 0 for no trace.

    Attributes:
        summary: The page, once there is one.

    Raises:
        ArgumentError: A number that cannot work.
    """

    order: ClassVar[int] = OBSERVER
    first_rank_only: ClassVar[bool] = True

    def __init__(self, directory: str | Path, *, wait: int = 10, batches: int = 50, trace: int = 5) -> None:
        for name, value, least in (("wait", wait, 0), ("batches", batches, 1), ("trace", trace, 0)):
            check_integer(name, value, at_least=least, fix=f"Profile(directory, {name}=10)")
        self.directory = Path(directory)
        self.wait, self.batches, self.trace = wait, batches, trace
        self.summary: str | None = None
        self._plan = (0, 0, 0)
        self._seen = -1
        self._step = self._samples = 0
        self._watch: _Watch | None = None
        self._profiler: Any = None

    def on_fit_start(self, state: TrainState) -> None:
        """Plans what fits into the run."""
        self.summary, self._seen = None, -1
        total = state.batches_per_epoch * (state.epochs - state.epoch) - state.batch_index
        wait, trace = min(self.wait, total // 4), min(self.trace, total // 4)
        # the profiler's first batch is not recorded, and the run's last one has no next to end it
        timed = min(self.batches, total - wait - (trace + 2 if trace else 1))
        self._plan = (wait, wait + max(timed, 1), trace)

    def on_batch_start(self, state: TrainState) -> None:
        """Goes on to what comes next in the plan: a window is from the start of one batch to that of another."""
        self._seen += 1
        start, end, trace = self._plan
        if self._seen < start or self._seen > end + trace + 1:
            return
        if self._seen == start:
            self._step, self._samples = state.step, 0
            self._watch = _Watch(state)
        elif self._seen < end:
            self._samples += state.samples  # of the batch before
        elif self._seen == end:
            self._end_timing(state)
            if trace:
                self._begin_trace(state)
        elif self._seen <= end + trace:
            self._next_traced()
        else:
            self._end_trace()

    def on_fit_end(self, state: TrainState) -> None:
        """Finishes with what there is; after an error only takes its hands off the run."""
        if state.exception is None:
            self._end_timing(state)
            self._end_trace()
        if self._watch is not None:
            self._watch.close()
        if self._profiler is not None:
            self._profiler.stop()
        self._watch = self._profiler = None

    def _end_timing(self, state: TrainState) -> None:
        if self._watch is None or self._profiler is not None:
            return
        spent, batches = self._watch.close(), self._watch.batches
        self._watch = None
        if batches:
            self._write(_page(state, spent, batches, self._samples + state.samples, self._step))

    def _begin_trace(self, state: TrainState) -> None:
        kinds = torch.profiler.ProfilerActivity
        actions = torch.profiler.ProfilerAction
        self._profiler = torch.profiler.profile(
            activities=[kinds.CPU, *([kinds.CUDA] if state.runtime.device.type == "cuda" else [])],
            schedule=lambda step: actions.WARMUP if step == 0 else actions.RECORD,
            acc_events=True,  # else it warns that a second cycle would forget the first; there is one
        )
        self._profiler.start()
        self._watch = _Watch(state, ranges=True)

    def _next_traced(self) -> None:
        if self._watch is not None and self._profiler is not None:
            self._watch.enter(None)  # ranges are nested: the profiler's own step ends outside of ours
            self._profiler.step()
            self._watch.enter("callbacks")

    def _end_trace(self) -> None:
        if self._watch is None or self._profiler is None:
            return
        profiler, recorded = self._profiler, self._watch.batches - 1
        self._watch.close()
        profiler.stop()
        self._watch = self._profiler = None
        if recorded > 0:
            path = self.directory / f"step-{self._step:08d}.pt.trace.json.gz"
            profiler.export_chrome_trace(str(path))
            self._write(f"{self.summary}\n{_operators(profiler, recorded)}\ntrace: {path}\n")

    def _write(self, page: str) -> None:
        self.summary = page
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"step-{self._step:08d}.txt"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)


class _Watch:
    """Divides the time into phases, by standing around what the loop calls for as long as it is open.

    Args:
        state: The run.
        ranges: Whether the phases are ranges in a trace.
    """

    def __init__(self, state: TrainState, *, ranges: bool = False) -> None:
        self.state = state
        self.batches = 0
        self._ranges = ranges
        self._range: Any = None
        self._marks: list[tuple[str | None, Any]] = []
        self._undo: list[tuple[Any, str, Any]] = []
        self._depth = 0
        self._open = True
        hooks = state.engine.hooks
        self._around(state.engine.train, "finish", "transform", "loop")
        self._around(state.runtime, "place", "transfer", "transform")
        self._around(engine, "forward", "forward", "backward")
        self._around(engine, "forward_backward", "forward", "loop")
        self._around(engine, "finish_gradients", "update", "loop")
        self._around(engine, "update", "update", "loop")
        self._around(hooks, "batch_start", "callbacks", "loop")
        self._around(hooks, "gradients_ready", "callbacks", "loop")
        self._around(hooks, "batch_end", "callbacks", "data")
        self._around(hooks, "epoch_start", BETWEEN, "data")
        self.enter("callbacks")

    def _around(self, holder: Any, name: str, inside: str, after: str) -> None:
        call: Callable[..., Any] = getattr(holder, name)

        def timed(*args: Any) -> Any:
            self._depth += name == "place"
            if name != "place" or self._depth == 1:  # it calls itself for what is nested in a batch
                self.enter(inside)
            try:
                return call(*args)
            finally:
                self._depth -= name == "place"
                if self._depth == 0:
                    self.enter(after)
                self.batches += name == "forward_backward"

        self._undo.append((holder, name, vars(holder).get(name)))
        setattr(holder, name, timed)

    def enter(self, phase: str | None) -> None:
        """Ends the phase under way and begins another."""
        if not self._open:  # closed from inside of a hook that it stands around
            return
        state = self.state
        over = phase == "data" and state.batch_index >= state.batches_per_epoch
        if phase is not None and (not state.training or over):
            phase = BETWEEN
        if self._marks and self._marks[-1][0] == phase:
            return
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        self._marks.append((phase, _now(state.runtime.device)))
        if self._ranges and phase is not None:
            self._range = torch.profiler.record_function(f"cvkit: {phase}")
            self._range.__enter__()

    def close(self) -> dict[str, float]:
        """Takes its hands off the run; returns the milliseconds of each phase. Waits for the device."""
        self.enter(None)
        self._open = False
        while self._undo:
            holder, name, own = self._undo.pop()
            if own is None:
                delattr(holder, name)
            else:
                setattr(holder, name, own)
        spent: dict[str, float] = {}
        self._marks[-1][1].wait()
        for (phase, begun), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            if phase is not None:
                spent[phase] = spent.get(phase, 0.0) + 1000 * begun.seconds_until(ended)
        return spent


def _now(device: torch.device) -> Moment:
    """Returns a moment: on a GPU that of its queue."""
    if device.type == "mps":  # which has no events in a queue that could be compared this cheaply
        torch.mps.synchronize()
    return streams.of(device).moment(timing=True)


def _page(state: TrainState, spent: Mapping[str, float], batches: int, samples: int, step: int) -> str:
    """Returns the page: what was looked at, the phases, and what to do about them."""
    runtime, model = state.runtime, state.model
    phases = {name: spent.get(name, 0.0) / batches for name in PHASES}
    whole = sum(phases.values())
    share = {name: one / whole if whole else 0.0 for name, one in phases.items()}
    rate = 1000 * samples / batches / whole if whole else 0.0
    parameters = sum(one.numel() for one in model.parameters())
    lines = [
        f"{batches} batches of {samples / batches:.4g} samples, from step {step} on",
        f"{type(model).__name__}, {parameters:,} parameters, {runtime.precision} on {_device(runtime.device)}",
        f"{whole:.2f} ms a batch, {rate:,.0f} samples/s"
        if rate >= 100
        else f"{whole:.2f} ms a batch, {rate:.2g} samples/s",
        "",
        f"{'phase':<10} {'ms a batch':>10} {'share':>7}",
    ]
    lines += [f"{name:<10} {phases[name]:>10.3f} {share[name]:>7.1%}  {what}" for name, what in PHASES.items()]
    lines.append(f"{'all':<10} {whole:>10.3f} {1:>7.1%}")
    if BETWEEN in spent:
        lines.append(f"not in it: {spent[BETWEEN]:,.0f} ms between epochs (validation, logging, saving)")
    if runtime.device.type == "cuda":
        lines.append(f"memory: {torch.cuda.max_memory_allocated(runtime.device) / 2**20:,.0f} MiB at most")
    return "\n".join([*lines, "", *_advice(share, state), ""])


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def _advice(share: Mapping[str, float], state: TrainState) -> list[str]:
    """Returns what to do about the phases that take more than is usual."""
    gpu = state.runtime.device.type != "cpu"
    found = []
    if share["data"] > 0.2:
        found.append(
            f"{share['data']:.0%} of the time the model waits for data. Let more workers load it (workers=…, of "
            f"{os.cpu_count()} cores here), keep it in memory (cache='ram'), or store the images smaller"
        )
    if share["transfer"] > 0.1:
        found.append(
            f"{share['transfer']:.0%} goes into bringing batches to the device. Move bytes, not floats: normalise in the batch "
            "stage of a transform; and take pinned memory (a torch DataLoader's pin_memory=True)"
        )
    if share["transform"] > 0.2:
        found.append(
            f"{share['transform']:.0%} goes into the batch transform"
            + ("" if gpu else ": on a GPU it would be nearly free; here, smaller images or fewer augmentations")
        )
    if share["update"] > 0.3:
        found.append(
            f"{share['update']:.0%} goes into updates. A larger batch or accumulate makes fewer of them; an optimizer given by "
            "name is fused where the device has that"
        )
    if share["callbacks"] > 0.1:
        found.append(f"{share['callbacks']:.0%} goes into callbacks: let them look less often (every_steps=…)")
    if share["loop"] > 0.1:
        found.append(f"{share['loop']:.0%} goes into the loop itself: the batches are very small; make them larger")
    if not found:
        model = share["forward"] + share["backward"]
        better = "precision='bf16', compile=True, a larger batch" if gpu else "a smaller model or image, or a GPU"
        found.append(f"{model:.0%} goes into the model itself, as it should. Faster from here: {better}")
    return found


def _operators(profiler: Any, batches: int) -> str:
    """Returns the dearest operators of a trace, by their own time on the device, or else on the CPU."""
    events = [one for one in profiler.key_averages() if not one.key.startswith(("cvkit: ", "ProfilerStep"))]
    device = sum(one.self_device_time_total for one in events)
    where = "device" if device > 0 else "cpu"

    def own(event: Any) -> float:
        return float(getattr(event, f"self_{where}_time_total"))

    whole = sum(map(own, events)) or 1.0
    lines = [f"{'operator':<56} {'calls':>8} {'ms a batch':>10} {'share':>7}  ({batches} batches, recorded)"]
    for event in sorted(events, key=own, reverse=True)[:OPERATORS]:
        calls = event.count / batches
        lines.append(
            f"{event.key[:56]:<56} {calls:>8.4g} {own(event) / batches / 1000:>10.3f} {own(event) / whole:>7.1%}"
        )
    return "\n".join(lines)

"""Settings that cannot be meant, judged by one real update where numbers alone do not tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from cvkit.diagnosis.probe import Probe
from cvkit.diagnosis.shapes import number, some
from cvkit.diagnosis.table import Seen, announce, check

announce("CV514", "warning", "Nothing left to train after a resume")

MOST_STEPS = 5000
"""As many updates of a schedule are looked at."""


def _groups(probe: Probe) -> list[tuple[Optimizer, dict[str, Any]]]:
    return [(one, group) for one in probe.settings.optimizers for group in one.param_groups]


def _rates(probe: Probe) -> list[list[float]]:
    steps = min(probe.settings.total_steps, MOST_STEPS)
    return [probe.runner.rates(which, steps) for which in range(len(probe.settings.schedules))]


@check("CV501", "warning", "A learning rate of 0", needs=["settings"])
def no_rate(probe: Probe) -> Iterator[Seen]:
    """Nothing is trained."""
    groups, settings = _groups(probe), probe.settings
    if not groups or settings.schedules or settings.changers or any(float(group["lr"]) != 0 for _, group in groups):
        return
    yield Seen("the learning rate is 0: nothing is trained", got="lr=0 and no schedule", fix="pass e.g. lr=1e-3")


@check("CV502", "warning", "A learning rate that changes nothing", needs=["update"])
def tiny_update(probe: Probe) -> Iterator[Seen]:
    """An update is so small that thousands of them would not show."""
    rates = [float(group["lr"]) for _, group in _groups(probe)]
    if probe.settings.changers or not rates or max(rates) <= 0 or max(rates) >= 1e-7:
        return
    if any(max(one, default=0.0) >= 1e-7 for one in _rates(probe)):
        return
    moved, size = _moved(probe)
    if size > 0 and moved / size < 1e-7:
        yield Seen(
            "an update changes next to nothing: the learning rate is too low",
            got=f"lr={max(rates):g}: an update of {number(moved / size)} of the weights' size",
            expected="about 1e-3 of it",
            fix="pass e.g. lr=1e-3 with adamw, or lr=0.05 with momentum; cvkit.find_lr(model, train) suggests one",
        )


def _moved(probe: Probe) -> tuple[float, float]:
    """Returns the size of the update and that of the weights before it."""
    moved = size = 0.0
    for name, parameter in probe.trainable().items():
        before = probe.before_update.get(name)
        if before is not None:
            moved += float((parameter.detach() - before).float().pow(2).sum())
            size += float(before.float().pow(2).sum())
    return math.sqrt(moved), math.sqrt(size)


@check("CV503", "warning", "A learning rate that throws the weights away", needs=["update"])
def huge_update(probe: Probe) -> Iterator[Seen]:
    """After one update the loss is many times what it was."""
    loss, after = probe.train.trace.loss, probe.updated_loss
    if not isinstance(loss, Tensor) or after is None or probe.settings.changers:
        return
    before = abs(float(loss.detach()))
    moved, size = _moved(probe)
    if moved < 0.5 * size or (math.isfinite(after) and after <= 10 * before + 5):
        return
    rate = max(float(group["lr"]) for _, group in _groups(probe))
    yield Seen(
        "the first update throws the weights away: the learning rate is too high",
        got=f"lr={rate:g}: loss {number(before)} before the update and {number(after)} after; it is {number(moved / size)} "
        "times as large as the weights"
        if size > 0
        else f"lr={rate:g}: loss {number(before)} before the update and {number(after)} after",
        expected="an update of about 1e-3 of the weights' size",
        fix="pass a lower lr; cvkit.find_lr(model, train) suggests one",
    )


@check("CV504", "warning", "A momentum that forgets nothing", needs=["settings"])
def endless_momentum(probe: Probe) -> Iterator[Seen]:
    """With momentum=1 every gradient counts for ever."""
    for optimizer, group in _groups(probe):
        momentum = group.get("momentum", 0)
        if isinstance(momentum, int | float) and momentum >= 0.9999:
            yield Seen(
                f"momentum={momentum} of {type(optimizer).__name__} forgets nothing: the weights run away",
                got=f"momentum={momentum}",
                expected="below 1; usual is 0.9",
                fix="momentum=0.9",
            )
            return


@check("CV505", "warning", "A weight decay that empties the weights", needs=["settings"])
def heavy_decay(probe: Probe) -> Iterator[Seen]:
    """Each update takes a tenth or more off every weight."""
    for optimizer, group in _groups(probe):
        decay, rate = group.get("weight_decay", 0), float(group["lr"])
        if not isinstance(decay, int | float):
            continue
        direct = isinstance(optimizer, SGD) or "adamw" in type(optimizer).__name__.lower()
        if (direct and rate * decay >= 0.1) or (not direct and decay >= 10):
            yield Seen(
                f"weight_decay={decay:g} of {type(optimizer).__name__} takes the weights to zero",
                got=f"lr={rate:g}: each update takes {min(100.0, 100 * rate * decay):.0f} % off every weight"
                if direct
                else f"weight_decay={decay:g}: it outweighs every gradient",
                expected="1e-4 to 0.3",
                fix="weight_decay=0.01",
            )
            return


@check("CV506", "warning", "Clipping that leaves no gradient", needs=["gradients", "settings"])
def clipped_away(probe: Probe) -> Iterator[Seen]:
    """The bound is a tiny part of the usual norm; optimizers that do not scale it back stand still."""
    clip = probe.settings.clip_norm
    found = [one for one in probe.train.trace.gradients.values() if one is not None]
    plain = bool(probe.settings.optimizers) and all(isinstance(one, SGD) for one in probe.settings.optimizers)
    if clip is None or not found or not plain:
        return
    norm = math.sqrt(sum(float(one.detach().float().pow(2).sum()) for one in found))
    if norm > 1000 * clip:
        yield Seen(
            f"clip_norm={clip:g} takes nearly all of the gradient away",
            got=f"a gradient of norm {number(norm)} on the first batch",
            expected="a bound near the usual norm",
            fix="clip_norm=1.0",
        )


@check("CV507", "warning", "Dropout that drops everything", needs=["settings"])
def drops_all(probe: Probe) -> Iterator[Seen]:
    """P is the share that is dropped, not the one that is kept."""
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    found = [(path, one) for path, one in probe.model.named_modules() if isinstance(one, kinds) and one.p >= 0.95]
    if found:
        yield Seen(
            f"dropout drops {100 * found[0][1].p:g} % of the values in training",
            got=f"p={found[0][1].p} in {some(path for path, _ in found)}",
            expected="p is the share that is dropped, usually 0.1 to 0.5",
            fix=f"nn.Dropout({max(0.1, round(1 - found[0][1].p, 2))})",
        )


@check("CV508", "warning", "Running statistics of the last batch", needs=["settings"])
def keras_momentum(probe: Probe) -> Iterator[Seen]:
    """Torch's momentum is the share of the new batch: Keras's 0.99 is 0.01 here."""
    found = [
        (path, one)
        for path, one in probe.model.named_modules()
        if isinstance(one, nn.modules.batchnorm._BatchNorm)
        and one.track_running_stats
        and one.training
        and isinstance(one.momentum, float)
        and one.momentum >= 0.9
    ]
    if found:
        momentum = float(found[0][1].momentum or 0.0)
        yield Seen(
            f"batch norm with momentum={momentum} validates with the statistics of the last batch",
            got=f"momentum={momentum} in {some(path for path, _ in found)}",
            expected="the share of the new batch, usually 0.1 (Keras's momentum is one minus it)",
            fix=f"momentum={max(0.01, round(1 - momentum, 3))}",
        )


@check("CV509", "warning", "accumulate beyond the epoch", needs=["settings"])
def beyond_the_epoch(probe: Probe) -> Iterator[Seen]:
    """A group ends with the epoch, so there is one update in it."""
    accumulate, batches = probe.settings.accumulate, probe.settings.batches
    if probe.settings.optimizers and batches > 1 and accumulate >= 2 * batches:
        yield Seen(
            f"accumulate={accumulate} is more than an epoch has batches: there is one update an epoch",
            got=f"{batches} batches an epoch",
            expected=f"at most {batches}",
            fix=f"accumulate={max(1, batches // 4)}",
        )


@check("CV510", "warning", "A schedule of another length", needs=["settings"])
def schedule_length(probe: Probe) -> Iterator[Seen]:
    """A schedule that counts epochs and is stepped at each update, or the other way round."""
    total = probe.settings.total_steps
    for (schedule, every), rates in zip(probe.settings.schedules, _rates(probe), strict=True):
        name, epochs = type(schedule).__name__, probe.settings.epochs
        steps = total if every == "step" else epochs
        if steps < 10 or not rates:
            continue
        peak, dead = max(rates), max(rates[len(rates) // 5 :], default=0.0)
        if peak > 0 and dead < 1e-3 * peak:
            yield Seen(
                f"the schedule {name} has ended the learning rate after a fifth of the run",
                got=f"lr={rates[0]:g} at the first update, {rates[len(rates) // 5]:g} after {len(rates) // 5} of {steps}",
                expected=f"a schedule of {steps} steps: it is stepped at each {'update' if every == 'step' else 'epoch'}",
                fix=f'count steps: {epochs} epochs are {total} updates; or LRSchedule(scheduler, every="epoch")',
            )
        elif isinstance(schedule, CosineAnnealingLR) and 4 * schedule.T_max <= steps:
            yield Seen(
                f"the learning rate of {name} swings up and down {steps // (2 * schedule.T_max)} times",
                got=f"T_max={schedule.T_max}, and {steps} steps",
                expected=f"T_max={steps}: it is stepped at each {'update' if every == 'step' else 'epoch'}",
                fix=f"CosineAnnealingLR(optimizer, T_max={steps})",
            )


@check("CV511", "error", "A schedule that runs out", needs=["settings"])
def runs_out(probe: Probe) -> Iterator[Seen]:
    """OneCycleLR refuses a step beyond its total_steps, in the middle of the run."""
    for (schedule, every), rates in zip(probe.settings.schedules, _rates(probe), strict=True):
        steps = probe.settings.total_steps if every == "step" else probe.settings.epochs
        # the step after the last update is made, too
        if rates and len(rates) < min(steps, MOST_STEPS):
            yield Seen(
                f"the schedule {type(schedule).__name__} ends after {len(rates)} of {steps} steps, in the middle of the run",
                got=f"a schedule that fails at step {len(rates) + 1}",
                expected=f"{steps} steps",
                fix=f"build it with total_steps={steps}: schedule=lambda optimizer, total: OneCycleLR(optimizer, max_lr=…, "
                "total_steps=total)",
            )


@check("CV512", "warning", "The worst model is kept as best", needs=["settings"])
def wrong_mode(probe: Probe) -> Iterator[Seen]:
    """A mode against what the metric says of itself."""
    for one in probe.settings.monitored:
        if one.mode is not None and one.better is not None and one.mode != one.better:
            yield Seen(
                f'{one.callback}(monitor="{one.name}", mode="{one.mode}") takes the worst for the best',
                got=f'mode="{one.mode}"',
                expected=f'mode="{one.better}": {one.name} is better the {"lower" if one.better == "min" else "higher"}',
                fix="leave mode out",
            )


@check("CV513", "warning", "drop_last on the validation data", needs=["settings"])
def dropped_validation(probe: Probe) -> Iterator[Seen]:
    """What is left out is never validated."""
    loader = probe.val.loader if probe.val is not None else None
    size = getattr(loader, "batch_size", None)
    dataset: Any = getattr(loader, "dataset", None)
    if not getattr(loader, "drop_last", False) or not isinstance(size, int) or not hasattr(dataset, "__len__"):
        return
    count = len(dataset)
    if count and count % size / count > 0.2:
        yield Seen(
            f"drop_last leaves {count % size} of {count} validation samples out",
            got=f"batch_size={size}, drop_last=True",
            expected="all of them",
            fix="drop_last=False for val",
        )

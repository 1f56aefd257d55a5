"""A run as one plain dict, and a plain dict back into a run."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from cvkit import seeding
from cvkit.errors import CheckpointError, CvkitWarning
from cvkit.training.checkpoint import plain
from cvkit.training.feed import can_skip, own_generators
from cvkit.training.state import History, TrainState

__all__ = ["FORMAT", "capture", "describe", "layers_of", "load_schedule", "restore", "schedule_state"]

FORMAT = 1


def capture(state: TrainState) -> dict[str, Any]:
    """Returns everything that continuing the run exactly needs, taken at an update boundary.

    Raises:
        CheckpointError: A callback's or metric's state holds something that is neither tensor nor plain type.
    """
    finished = state.epochs_done > state.epoch or state.batch_index == 0  # between epochs
    # what a module keeps beside its weights (get_extra_state) need be no tensor
    own = state.model.state_dict()
    weights = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in own.items()}
    training = {
        "weights": weights if state.averaged is not None else None,
        "epoch": state.epochs_done,
        "batch": 0 if finished else state.batch_index,
        "step": state.step,
        "epochs": state.epochs,
        "seed": state.seed,
        "data": fingerprint(state),
        "settings": settings(state),
        "rng": seeding.capture(),
        "epoch_rng": None if finished else state.epoch_rng,
        "loader_rng": [_loader_rng(state.train), _loader_rng(state.val)],
        "loss": state.loss_fn.state_dict() if isinstance(state.loss_fn, nn.Module) else {},
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "schedules": [schedule_state(schedule) for schedule in state.schedules],
        "scaler": state.runtime.scaler.state_dict() if state.runtime.scaler is not None else None,
        "losses": state.train_meters.losses.state_dict(),
        "metrics": {name: _metric_state(metric) for name, metric in state.train_meters.metrics.items()},
        "logs": {} if finished else state.logs,
        "callbacks": state.hooks.state_dict() if state.hooks is not None else {},
        "history": state.history.rows,
    }
    return {
        "format": FORMAT,
        "cvkit": version("cvkit"),
        "torch": str(torch.__version__),
        "model": dict(state.averaged) if state.averaged is not None else weights,
        "description": describe(state),
        "training": plain(training, "training"),
    }


def describe(state: TrainState) -> dict[str, Any]:
    """Returns what makes a checkpoint usable without the script that wrote it.

    The builder's name and arguments, the class names and the evaluation preset; ``None`` for each that is not known.
    """
    classes = getattr(state.train, "classes", None)
    transform: Any = getattr(state.val, "transform", None)
    if transform is None:
        trained: Any = getattr(state.train, "transform", None)
        transform = trained.evaluation() if hasattr(trained, "evaluation") else None
    return {
        "model": getattr(state.model, "cvkit_config", None),
        "layers": layers_of(state.model),
        "classes": [str(name) for name in classes] if classes is not None else None,
        "transform": transform.to_config() if hasattr(transform, "to_config") else None,
        "loss": state.loss_spec.name,
        "pictures": _pictures(state.val if state.val is not None else state.train),
    }


def layers_of(model: nn.Module) -> dict[str, str]:
    """Returns what each module is, by its path, as text: weights that fit do not say which activation or pooling is there.

    Dropout, which prediction does not know, is left out.
    """
    return {
        path: f"{type(one).__name__}({one.extra_repr()})"
        for path, one in model.named_modules()
        if not isinstance(one, nn.modules.dropout._DropoutNd)
    }


def _pictures(loader: Any) -> dict[str, Any]:
    """Returns how a loader's pictures come about, so that a prediction can go the same way; ``None`` for what is not known.

    The batch size; what kind of label stands beside each; how files are decoded, and whether always in their full size.
    """
    given: Any = getattr(loader, "dataset", None)
    data = given
    while hasattr(data, "dataset"):  # the whole of a part
        data = data.dataset
    size, kind = getattr(loader, "batch_size", None), getattr(data, "kind", None)
    behind, most = getattr(data, "background", None), getattr(data, "max_pixels", None)
    colour = getattr(data, "colour", None)
    levels = isinstance(behind, list | tuple) and all(isinstance(level, int) for level in behind)
    return {
        "batch_size": size if isinstance(size, int) else None,
        "kind": kind if isinstance(kind, str) else None,
        # a loader asks the data set itself for less, not the whole behind it
        "whole": kind in ("mask", "image") or not hasattr(given, "read"),
        "background": list(behind) if behind is not None and levels else None,
        "max_pixels": most if isinstance(most, int) else None,
        "colour": colour if colour in ("convert", "ignore") else None,
    }


def fingerprint(state: TrainState) -> dict[str, Any]:
    """Returns what must be the same for a run to be continued on the same data; ``None`` for what a loader does not tell."""
    own = getattr(state.train, "fingerprint", None)
    return {
        "batches": len(state.train),
        "accumulate": state.accumulate,
        "loader seed": getattr(state.train, "seed", None) if can_skip(state.train) else None,
        "batch size": getattr(state.train, "batch_size", None),
        "data": own if isinstance(own, str) else None,
    }


def restore(state: TrainState, content: Mapping[str, Any], source: object) -> None:
    """Puts a run where :func:`capture` found it.

    Args:
        state: A state as freshly built, with ``state.hooks``.
        content: What a checkpoint file held.
        source: The file, for messages.

    Raises:
        CheckpointError: The file is of a newer format, holds no training state, or does not fit this run.
    """
    saved = _training_part(content, source)
    weights = saved["weights"] or content["model"]
    _check_weights(state.model, weights, content, source)
    _check_fit(state, saved, source)
    state.model.load_state_dict(weights)
    _restore_optimizers(state, saved, source)
    if state.runtime.scaler is not None and saved["scaler"] is not None:
        state.runtime.scaler.load_state_dict(saved["scaler"])
    state.train_meters.losses.load_state_dict(saved["losses"])
    for name, metric in state.train_meters.metrics.items():
        _load_metric(name, metric, saved["metrics"].get(name), in_epoch=saved["batch"] > 0)
    state.epoch = state.epochs_done = saved["epoch"]
    state.batch_index, state.step, state.seed = saved["batch"], saved["step"], saved["seed"]
    state.history = History(saved["history"])
    state.logs = dict(saved["logs"])
    state.epoch_rng = saved["epoch_rng"]
    for key in state.hooks.load_state_dict(saved["callbacks"]) if state.hooks is not None else ():
        warnings.warn(
            f"{source} holds the state of a callback {key!r} that this run does not have", CvkitWarning, stacklevel=2
        )
    for loader, generators in zip((state.train, state.val), saved["loader_rng"], strict=True):
        for generator, one in zip(own_generators(loader), generators, strict=False):
            generator.set_state(one)
    if isinstance(state.loss_fn, nn.Module):
        state.loss_fn.load_state_dict(saved["loss"])
    state.resume_rng = saved["rng"]


def _training_part(content: Mapping[str, Any], source: object) -> Mapping[str, Any]:
    if not isinstance(content.get("training"), Mapping) or "model" not in content:
        raise CheckpointError(
            f"{source} holds no training state",
            got=f"the keys {sorted(map(str, content))}",
            expected="a file that a Checkpoint callback wrote",
            fix="load its weights by hand: model.load_state_dict(cvkit.load_checkpoint(path)[...])",
        )
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{source} is of another format",
            got=f"format {content.get('format')}, written by cvkit {content.get('cvkit')}",
            expected=f"format {FORMAT}",
            fix=f"use cvkit {content.get('cvkit')} to continue this run",
        )
    training: Mapping[str, Any] = content["training"]
    return training


def _check_weights(model: nn.Module, weights: Mapping[str, Any], content: Mapping[str, Any], source: object) -> None:
    there = {name: tuple(getattr(value, "shape", ())) for name, value in model.state_dict().items()}
    saved = {name: tuple(getattr(value, "shape", ())) for name, value in weights.items()}
    if there == saved:
        return
    lost, new = [name for name in saved if name not in there], [name for name in there if name not in saved]
    other = [
        f"{name} {saved[name]} then, {there[name]} now" for name in saved if there.get(name, saved[name]) != saved[name]
    ]
    parts = [
        f"{what}: {', '.join(names[:5])}" for what, names in (("gone", lost), ("new", new), ("other", other)) if names
    ]
    raise CheckpointError(
        f"the weights in {source} do not fit the model",
        got="; ".join(parts),
        expected=f"the model that the run was made with: {content['description'].get('model')}",
        fix="build the same model, or start a new run in another directory",
    )


def settings(state: TrainState) -> dict[str, str]:
    """Returns what decides the updates besides the data, as text; where it runs and how fast does not belong here."""
    found = {"loss": state.loss_spec.name, "clip_norm": str(state.clip_norm), "processes": "1"}
    found["optimizer"] = ", ".join(type(optimizer).__name__ for optimizer in state.optimizers)
    for optimizer in state.optimizers:
        options = {key: value for key, value in optimizer.defaults.items() if key not in _HOW}
        found |= {f"{type(optimizer).__name__}'s {key}": str(value) for key, value in options.items()}
    found["schedule"] = ", ".join(type(schedule).__name__ for schedule in state.schedules) or "none"
    transform: Any = getattr(state.train, "transform", None)
    if hasattr(transform, "to_config"):
        found |= {f"the transform's {key}": str(value) for key, value in transform.to_config().items()}
    return found


_HOW = {"foreach", "fused", "capturable", "differentiable"}
"""Settings of an optimizer that say how it computes, not what."""


def _check_fit(state: TrainState, saved: Mapping[str, Any], source: object) -> None:
    now, then = {**fingerprint(state), **settings(state)}, {**saved["data"], **saved["settings"]}
    changed = {
        name: f"{name}: {then[name]} then, {now[name]} now"
        for name in then
        if name in now and None not in (then[name], now[name]) and then[name] != now[name]
    }
    if changed.keys() & {"batch size", "loader seed"}:  # the loader's hash is over these too
        changed.pop("data", None)
    elif "data" in changed:
        changed["data"] = "data: other files, labels or classes, or another shuffle, drop_last or weights"
    if changed:
        raise CheckpointError(
            f"the run in {source} is another one than this",
            got="; ".join(changed.values()),
            expected="the same data, transform, batch size, seed, loss, optimizer and schedule; the number of epochs, of "
            "workers, the device and the cache may change",
            fix="undo the change; or start a new run in another directory from these weights: "
            f"cvkit.load_weights(model, {str(source)!r})",
        )


def _restore_optimizers(state: TrainState, saved: Mapping[str, Any], source: object) -> None:
    total_changed = bool(state.schedules) and saved["epochs"] != state.epochs
    if total_changed:
        warnings.warn(
            f"the run continued from {source} was planned for {saved['epochs']} epochs and is now "
            f"to have {state.epochs}: its learning-rate schedule is recomputed for the new length",
            CvkitWarning,
            stacklevel=2,
        )
    planned = _advance(state, saved["step"]) if total_changed else None
    for optimizer, one in zip(state.optimizers, saved["optimizers"], strict=True):
        try:
            optimizer.load_state_dict(one)
        except ValueError as error:
            raise CheckpointError(
                f"{source} does not fit the optimizer {type(optimizer).__name__}",
                got=str(error),
                expected="an optimizer over the same parameter groups",
                fix="pass the optimizer that the run was made with, or start a new run in another directory",
            ) from error
    if planned is not None:
        for optimizer, groups in zip(state.optimizers, planned, strict=True):
            for group, values in zip(optimizer.param_groups, groups, strict=True):
                group.update(values)
    else:
        for schedule, one in zip(state.schedules, saved["schedules"], strict=False):
            load_schedule(schedule, one)


def _advance(state: TrainState, steps: int) -> list[list[dict[str, Any]]]:
    """Steps fresh schedules to where the run stands, and returns the optimizers' settings there."""
    for optimizer, schedule in zip(state.optimizers, state.schedules, strict=True):
        optimizer._opt_called = True  # type: ignore[attr-defined]  # torch warns of schedule.step() before it
        for _ in range(min(steps, state.total_steps - 1)):
            schedule.step()
    return [
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        for optimizer in state.optimizers
    ]


def schedule_state(schedule: LRScheduler) -> dict[str, Any]:
    """Returns a schedule's state as plain types; what is a function is built again by the script that resumes."""
    return {key: _plain_counter(value) for key, value in schedule.state_dict().items() if not callable(value)}


def _plain_counter(value: Any) -> Any:
    return dict(value) if isinstance(value, collections.Counter) else value


def load_schedule(schedule: LRScheduler, saved: Mapping[str, Any]) -> None:
    """Takes back what :func:`schedule_state` returned; plain dicts become counters again where there was one."""
    counters = {key for key, value in vars(schedule).items() if isinstance(value, collections.Counter)}
    schedule.load_state_dict({k: collections.Counter(v) if k in counters else v for k, v in saved.items()})


def _loader_rng(loader: Any) -> list[torch.Tensor]:
    return [generator.get_state() for generator in own_generators(loader)]


def _metric_state(metric: Any) -> dict[str, Any] | None:
    """Returns a metric's running state, or ``None`` where it cannot be told."""
    if hasattr(metric, "state_dict") and (state := metric.state_dict()):
        return dict(state)
    if hasattr(metric, "_defaults"):  # torchmetrics keeps its sums out of state_dict by default
        return {name: getattr(metric, name) for name in metric._defaults}
    return None


def _load_metric(name: str, metric: Any, saved: Mapping[str, Any] | None, *, in_epoch: bool) -> None:
    if saved is not None and hasattr(metric, "_defaults"):
        for key, value in saved.items():
            setattr(metric, key, value)
    elif saved is not None and hasattr(metric, "load_state_dict"):
        metric.load_state_dict(saved)
    elif in_epoch:
        warnings.warn(
            f"the metric {name!r} has no state_dict(): in the epoch continued here, only what comes now counts",
            CvkitWarning,
            stacklevel=2,
        )

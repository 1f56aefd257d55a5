"""A run as one plain dict, and a plain dict back into a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from cvkit import seeding
from cvkit.calls import warn
from cvkit.errors import CheckpointError
from cvkit.plain_values import shown
from cvkit.serialization import state_dicts
from cvkit.serialization.checkpoint import plain
from cvkit.training import schedule_free, schedules
from cvkit.training.distributed import is_first
from cvkit.training.loaders import Adapter
from cvkit.training.reduction import merged, merged_messages
from cvkit.training.run_changes import Changes, check, recorded
from cvkit.training.state import History, TrainState

__all__ = ["FORMAT", "capture", "describe", "layers_of", "restore"]

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
    usable = _usable(state)
    training = {
        "weights": weights if usable is not None else None,
        "epoch": state.epochs_done,
        "first_epoch": state.engine.first_epoch,
        "batch": 0 if finished else state.batch_index,
        "step": state.step,
        "epochs": state.epochs,
        "max_steps": state.max_steps,
        "seed": state.seed,
        **recorded(state),
        "rng": _random(state),
        "epoch_rng": None if finished else state.engine.epoch_rng,
        **_loader_states(state),
        "loss": state.loss_fn.state_dict() if isinstance(state.loss_fn, nn.Module) else {},
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        # of the last update: of an epoch that is only to be validated they are logged
        "lrs": None if finished else state.lrs,
        "schedules": [schedules.schedule_state(schedule) for schedule in state.schedules],
        "schedule_offset": state.engine.schedule_offset,
        "scaler": state.runtime.scaler.state_dict() if state.runtime.scaler is not None else None,
        "losses": state.engine.train_meters.losses.state_dict(),
        "metrics": {name: _metric_state(metric) for name, metric in merged(state.engine.train_meters.metrics).items()},
        "logs": {} if finished else state.logs,
        "callbacks": state.engine.hooks.state_dict() if state.engine.hooks is not None else {},
        "history": state.history.state_dict(),
        "skipped": [_skipped_state(one) for one in merged_messages(state.skipped)],
    }
    return {
        "format": FORMAT,
        "cvkit": version("cvkit"),
        "torch": str(torch.__version__),
        "model": usable if usable is not None else weights,
        "description": describe(state),
        "training": plain(training, "training"),
    }


def _usable(state: TrainState) -> dict[str, Any] | None:
    """Returns the weights to use where they are others than those to train: averages of a callback's or an optimizer's."""
    if state.engine.averaged is not None:
        return dict(state.engine.averaged)
    with schedule_free.usable_weights(state.optimizers) as others:
        return copy.deepcopy(dict(state.model.state_dict())) if others else None


def _random(state: TrainState) -> dict[str, Any]:
    """Returns the generators as they are outside of the steps, each of which has a seed of its own on several ranks."""
    random, world = seeding.capture(), state.engine.world
    return random if world is None or world.random is None else random | {"torch": world.random}


def describe(state: TrainState) -> dict[str, Any]:
    """Returns what makes a checkpoint usable without the script that wrote it.

    The builder's name and arguments, the class names and the evaluation preset; ``None`` for each that is not known.
    """
    train, val = state.engine.train, state.engine.val
    classes = train.said("classes")
    transform: Any = val.said("transform") if val is not None else None
    if transform is None:
        trained: Any = train.said("transform")
        transform = trained.evaluation() if hasattr(trained, "evaluation") else None
    return {
        "model": getattr(state.model, "cvkit_config", None),
        "layers": layers_of(state.model),
        "classes": [str(name) for name in classes] if classes is not None else None,
        "transform": transform.to_config() if hasattr(transform, "to_config") else None,
        "loss": state.engine.loss_spec.name,
        "images": _images(val if val is not None else train),
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


def _images(source: Adapter) -> dict[str, Any]:
    """Returns how a loader's images come about, so that a prediction can go the same way; ``None`` for what is not known.

    The batch size; what kind of label stands beside each; how files are decoded, and whether always in their full size.
    """
    given: Any = source.said("dataset")
    data = given
    while hasattr(data, "dataset"):  # the whole of a part
        data = data.dataset
    size, kind = source.said("batch_size"), getattr(data, "kind", None)
    behind, most = getattr(data, "background", None), getattr(data, "max_pixels", None)
    colour = getattr(data, "colour", None)
    levels = isinstance(behind, list | tuple) and all(isinstance(level, int) for level in behind)
    return {
        "batch_size": size if isinstance(size, int) else None,
        "kind": kind if isinstance(kind, str) else None,
        # a loader asks the dataset itself for less, not the whole behind it
        "whole": kind in ("mask", "image") or not hasattr(given, "read"),
        "background": list(behind) if behind is not None and levels else None,
        "max_pixels": most if isinstance(most, int) else None,
        "colour": colour if colour in ("convert", "ignore") else None,
    }


def restore(state: TrainState, content: Mapping[str, Any], source: object) -> None:
    """Puts a run where :func:`capture` found it.

    Args:
        state: A state as freshly built, with ``state.engine.hooks``.
        content: What a checkpoint file held.
        source: The file, for messages.

    Raises:
        CheckpointError: The file is of a newer format, holds no training state, or does not fit this run.
    """
    saved = _training_part(content, source)
    weights = saved["weights"] or content["model"]
    _check_weights(state.model, weights, content, source)
    changes = check(state, saved, source)
    state.model.load_state_dict(weights)
    state.engine.schedule_offset = _offset(state, saved, changes)
    _restore_optimizers(state, saved, changes, source)
    if state.runtime.scaler is not None and saved["scaler"] is not None:
        state.runtime.scaler.load_state_dict(saved["scaler"])
    state.engine.train_meters.losses.load_state_dict(saved["losses"])
    for name, metric in state.engine.train_meters.metrics.items():
        fresh = name not in saved["metrics"] or _is_changed(f"metric {name}", changes)
        if not fresh:
            _load_metric(name, metric, saved["metrics"][name], in_epoch=saved["batch"] > 0)
        elif saved["batch"] > 0:
            _warn_of_metric(f"the metric {name!r} is new")
    state.epoch = state.epochs_done = saved["epoch"]
    state.engine.first_epoch = saved.get("first_epoch", 0)
    state.batch_index, state.step, state.seed = saved["batch"], saved["step"], saved["seed"]
    state.history = History()
    state.history.load_state_dict(saved["history"])
    state.logs = dict(saved["logs"])
    state.engine.epoch_rng, state.engine.used_lrs = saved["epoch_rng"], saved.get("lrs")
    if "skipped" in saved:  # older files do not tell
        state.engine.skipped_before = (_skipped(saved["skipped"][0]), _skipped(saved["skipped"][1]))
    _restore_callbacks(state, saved, changes, source)
    _restore_loaders(state, saved)
    if isinstance(state.loss_fn, nn.Module) and "loss" not in changes.parts:
        state.loss_fn.load_state_dict(saved["loss"])
    state.engine.resume_rng = saved["rng"]
    if not is_first():  # what all ranks have counted goes on with rank 0
        for metric in state.engine.train_meters.metrics.values():
            metric.reset()


def _offset(state: TrainState, saved: Mapping[str, Any], changes: Changes) -> int:
    """Returns how many steps the schedules are ahead of the run, so that they end with it.

    Where an epoch has another number of updates than it had, they stand where they would if it had always been so.
    """
    before: int = saved.get("schedule_offset", 0)
    return saved["epoch"] * state.steps_per_epoch - saved["step"] if changes.steps else before


def _is_changed(owner: str, changes: Changes) -> bool:
    return f"the {owner}" in changes.names or bool(changes.of(f"the {owner}"))


def _restore_callbacks(state: TrainState, saved: Mapping[str, Any], changes: Changes, source: object) -> None:
    if state.engine.hooks is None:
        return
    rates = [key for groups in state.engine.options for group in groups for key in group if key in changes.parts]
    left = state.engine.hooks.load_state_dict(saved["callbacks"], lambda key: [*changes.of(key), *rates])
    for key in left if is_first() and not {"callbacks", "schedule"} & changes.parts else ():
        warn(f"{source} holds the state of a callback {key!r} that this run does not have")


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
    odd = state_dicts.unusable_tensor(weights, model.state_dict())
    if there == saved and odd is None:
        return
    lost, new = [name for name in saved if name not in there], [name for name in there if name not in saved]
    other = [
        f"{name} {saved[name]} then, {there[name]} now" for name in saved if there.get(name, saved[name]) != saved[name]
    ]
    parts = [
        f"{what}: {', '.join(names[:5])}" for what, names in (("gone", lost), ("new", new), ("other", other)) if names
    ]
    description = content.get("description")
    config = description.get("model") if isinstance(description, Mapping) else None
    raise CheckpointError(
        f"the weights in {source} do not fit the model",
        got="; ".join(parts) or odd,
        expected="the model that the run was made with" + (f": {shown(config)}" if config is not None else ""),
        fix="build the same model, or start a new run in another directory",
    )


def _restore_optimizers(state: TrainState, saved: Mapping[str, Any], changes: Changes, source: object) -> None:
    """Gives optimizers and schedules their state back; where ``override`` says so, the values of this call stand."""
    _tell_of_length(state, saved, source)
    own = {"schedule", "lr", "optimizer", "momentum", "betas"} & changes.parts
    anew = bool(state.schedules) and (_planned(state, saved) != state.total_steps or changes.steps or bool(own))
    planned = schedules.planned(state, saved["step"] + state.engine.schedule_offset) if anew else None
    if not {"optimizer", "parameter groups"} & changes.names:  # else there is nothing that would fit
        _load_optimizers(state, saved, source)
    for optimizer, groups in zip(state.optimizers, state.engine.options, strict=True):
        meant = [{key: one for key, one in group.items() if key in changes.parts} for group in groups]
        schedules.set_options(optimizer, meant)
    if planned is not None:
        for optimizer, groups in zip(state.optimizers, planned, strict=True):
            schedules.set_options(optimizer, groups)
    else:
        for schedule, one in zip(state.schedules, saved["schedules"], strict=False):
            schedules.load_schedule(schedule, one)


def _tell_of_length(state: TrainState, saved: Mapping[str, Any], source: object) -> None:
    if not state.schedules or _planned(state, saved) == state.total_steps:
        return
    bounded = state.max_steps is not None or saved.get("max_steps") is not None
    then, now = (_planned(state, saved), state.total_steps) if bounded else (saved["epochs"], state.epochs)
    warn(
        f"the run continued from {source} was planned for {then} {'updates' if bounded else 'epochs'} and is now "
        f"to have {now}: its learning-rate schedule is recomputed for the new length"
    )


def _planned(state: TrainState, saved: Mapping[str, Any]) -> int:
    """Returns how many updates a saved run was to have, with the epochs of this one."""
    whole: int = state.steps_per_epoch * saved["epochs"]
    most = saved.get("max_steps")
    return whole if most is None else min(whole, most)


def _load_optimizers(state: TrainState, saved: Mapping[str, Any], source: object) -> None:
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


def _loader_states(state: TrainState) -> dict[str, Any]:
    """Returns what of the loaders must be kept; of a validation, which is done as a whole, where the last one ended."""
    train, val = state.engine.train, state.engine.val
    return {
        "loader_rng": [one.generator_states() if one is not None else [] for one in (train, val)],
        "loaders": [train.state(), val.state(at_end=val is not train) if val is not None else None],
    }


def _restore_loaders(state: TrainState, saved: Mapping[str, Any]) -> None:
    states = saved.get("loaders", (None, None))  # older files have none
    for loader, generators, one in zip(
        (state.engine.train, state.engine.val), saved["loader_rng"], states, strict=True
    ):
        if loader is None:
            continue
        loader.set_generators(generators)
        if one is not None:
            loader.restore(one)


def _skipped_state(skipped: Mapping[int, str]) -> dict[str, Any]:
    """Returns which samples were left out, and one reason: the file must not grow by a text for each."""
    example = next(iter(skipped.values()), None)
    return {"indices": torch.tensor(sorted(skipped), dtype=torch.int64), "example": example}


def _skipped(saved: Mapping[str, Any]) -> dict[int, str]:
    return dict.fromkeys(saved["indices"].tolist(), saved["example"])


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
        _warn_of_metric(f"the metric {name!r} has no state_dict()")


def _warn_of_metric(why: str) -> None:
    warn(f"{why}: in the epoch continued here, only what comes now counts")

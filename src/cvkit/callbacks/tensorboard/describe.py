"""A run and its model in words: Markdown for the text page, plain values for the hyperparameters."""

from __future__ import annotations

import platform
import socket
from importlib.metadata import version
from typing import Any, TypeAlias

import torch
from torch import nn

from cvkit.training.state import TrainState

__all__ = ["Plain", "hyperparameters", "model", "settings"]

Plain: TypeAlias = bool | int | float | str

_MOST_ROWS = 200


def settings(state: TrainState) -> str:
    """Returns what the run was started with, as a table."""
    runtime = state.runtime
    rows: dict[str, Any] = {
        "model": type(state.model).__name__,
        "epochs": state.epochs,
        "batches an epoch": state.batches_per_epoch,
        "batch size": getattr(state.train, "batch_size", None),
        "accumulate": state.accumulate,
        "loss": state.engine.loss_spec.name,
        "metrics": ", ".join(state.engine.train_meters.metrics) or None,
        **{f"optimizer {index + 1}": _optimizer(one) for index, one in enumerate(state.optimizers)},
        "schedule": ", ".join(type(one).__name__ for one in state.schedules) or None,
        "clip_norm": state.clip_norm,
        "seed": state.seed,
        "device": _device(runtime.device),
        "precision": runtime.precision,
        "compile": runtime.compile,
        "train": _loader(state.train),
        "val": _loader(state.val),
        "cvkit, torch, Python": f"{version('cvkit')}, {torch.__version__}, {platform.python_version()}",
        "host": f"{socket.gethostname()}, {platform.system()}",
    }
    shown = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value is not None]
    return "\n".join(["| setting | value |", "| --- | --- |", *shown])


def model(network: nn.Module) -> str:
    """Returns a model's layers and parameters, as a table, and how torch shows it."""
    total = sum(one.numel() for one in network.parameters())
    trained = sum(one.numel() for one in network.parameters() if one.requires_grad)
    rows = []
    for name, module in network.named_modules():
        if name.count(".") < 2 and name:
            count = sum(one.numel() for one in module.parameters())
            rows.append(f"| `{name}` | {type(module).__name__} | {_cell(module.extra_repr())} | {count:,} |")
    left = len(rows) - _MOST_ROWS
    rows = [*rows[:_MOST_ROWS], f"| … | {left} more | | |"] if left > 0 else rows
    config = getattr(network, "cvkit_config", None)
    built = f"`{config}`\n\n" if config else ""
    return f"**{type(network).__name__}**: {total:,} parameters, {trained:,} of them trained\n\n{built}" + "\n".join(
        ["| layer | kind | | parameters |", "| --- | --- | --- | ---: |", *rows]
    )


def hyperparameters(state: TrainState) -> dict[str, Plain]:
    """Returns the settings of a run that one compares runs by."""
    first = state.optimizer.param_groups[0]
    config = getattr(state.model, "cvkit_config", None) or {}
    found: dict[str, Any] = {
        "model": config.get("name", type(state.model).__name__),
        "optimizer": type(state.optimizer).__name__,
        "lr": float(first.get("initial_lr", first["lr"])),
        "weight_decay": first.get("weight_decay"),
        "schedule": type(state.schedules[0]).__name__ if state.schedules else None,
        "batch_size": getattr(state.train, "batch_size", None),
        "accumulate": state.accumulate,
        "epochs": state.epochs,
        "loss": state.engine.loss_spec.name,
        "clip_norm": state.clip_norm,
        "precision": state.runtime.precision,
        "seed": str(state.seed),  # as a number it would lose its last digits
    }
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str)}


def _optimizer(optimizer: torch.optim.Optimizer) -> str:
    plain = {
        name: value
        for name, value in optimizer.defaults.items()
        if isinstance(value, int | float | tuple) and value is not False
    }
    groups = len(optimizer.param_groups)
    shown = ", ".join(f"{name}={value}" for name, value in plain.items())
    return f"{type(optimizer).__name__}({shown})" + (f", {groups} groups" if groups > 1 else "")


def _device(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _loader(loader: Any) -> str | None:
    if loader is None:
        return None
    dataset = getattr(loader, "dataset", None)
    try:
        samples = f"{len(dataset)} samples, " if dataset is not None else ""
    except TypeError:  # a dataset without a length
        samples = ""
    transform = getattr(loader, "transform", None)
    shown = f", {transform!r}" if transform is not None else ""
    return f"{type(loader).__name__} of {samples}{len(loader)} batches{shown}"


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")

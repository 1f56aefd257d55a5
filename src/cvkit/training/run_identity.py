"""What decides a run, as one line of text a fact: the updates, the order of samples, and what is logged.

Where a run is computed and how fast is no part of it: device, compilation, kernels, workers and caches may change.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from cvkit.training.callback import CHANGER, ask
from cvkit.training.identity import Fact, Facts, GivenArguments
from cvkit.training.loaders import Adapter, Resumable
from cvkit.training.stable_text import Description, describe, digest, plain_text
from cvkit.training.state import TrainState

__all__ = [
    "PARTS",
    "fingerprint",
    "gather",
    "of_scheduler",
    "option_names",
    "option_texts",
    "without_state",
]

PARTS = {
    "accumulate",
    "callbacks",
    "clip_norm",
    "data",
    "loss",
    "metrics",
    "model",
    "optimizer",
    "precision",
    "schedule",
    "step",
    "transform",
    "val",
}
"""The parts of a run that ``override`` knows, besides the options of the optimizers."""

_HOW = {"foreach", "fused", "capturable", "differentiable"}
"""Options of an optimizer that say how it computes, not what."""

_NO_OPTIONS = {"params", "param_names", "initial_lr", *_HOW}

_STEPPED = {
    *("optimizer", "base_lrs", "use_beta1", "verbose"),
    *("last_epoch", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"),
}
"""Attributes of torch's schedulers that say how far they are, or follow from the optimizer."""


def gather(state: TrainState, given: GivenArguments) -> Facts:
    """Returns all facts of a run that is about to start.

    Args:
        state: As :mod:`cvkit.training.setup` has made it; no callback has started yet.
        given: What it does not hold.
    """
    found = _of_loader(state.engine.train, "", "data") | _of_loader(state.engine.val, "val ", "val")
    found["accumulate"] = Fact(str(state.accumulate), ("accumulate",))
    found["clip_norm"] = Fact(str(state.clip_norm), ("clip_norm",))
    found["processes"] = Fact("1")
    found["precision"] = Fact(state.runtime.precision, ("precision",))
    found["precision asked for"] = Fact(state.runtime.asked_precision)  # "auto" may come to another on another device
    found |= _of_optimizers(state, given.options) | _of_schedules(state, given.schedule)
    state.engine.val_meters.reset()  # what its metrics have summed elsewhere is no part of what they are
    return found | _moving(state, given.step, state.engine.val_meters.metrics)


def without_state(facts: Facts, state: TrainState, given: GivenArguments) -> Facts:
    """Returns the facts without those that the training has changed by now: they are state, which is saved as such."""
    now = _moving(state, given.step, state.engine.train_meters.metrics)
    return {name: fact for name, fact in facts.items() if not fact.moves or now.get(name) == fact}


def _moving(state: TrainState, step: Any, metrics: Mapping[str, Any]) -> Facts:
    """Returns the facts that are read off objects of the user's, which training might change."""
    found = {"loss": Fact(state.engine.loss_spec.name, ("loss",))}
    found |= _described("loss", describe(state.loss_fn), "loss", shape="the loss's make", behind=("loss",))
    found |= _described("step", describe(step), "step")
    found |= _of_transforms(state.engine.train, "") | _of_transforms(state.engine.val, "val ")
    found |= _of_metrics(metrics) | _of_model(state.model) | _of_callbacks(state)
    return {name: dataclasses.replace(fact, moves=True) for name, fact in found.items()}


def _described(what: str, found: Description, part: str, *, shape: str = "", behind: tuple[str, ...] = ()) -> Facts:
    """Returns the facts of an object: its make, then its values and its code, which a change of the make explains."""
    top = shape or what
    facts = {top: Fact(found.shape, (part,), behind)}
    facts |= {f"the {what}'s {path}": Fact(text, (part,), (top,)) for path, text in found.values.items()}
    if found.code:
        facts[f"the {what}'s code"] = Fact(found.code, (part,), (top,))
    return facts


# --- data


_FINER = (
    "batch size",
    "loader seed",
    "samples",
    "shuffle",
    "drop_last",
    "weights",
    "files and labels",
    "classes",
    "loader",
)
"""What explains another hash of the data, which is over all of these."""


def fingerprint(state: TrainState, facts: Facts) -> dict[str, Any]:
    """Returns what of the data must be the same, as every version keeps it; ``None`` for what a loader does not tell."""
    hashed = facts["data"].value if "data" in facts else None
    return {
        "batches": state.batches_per_epoch,
        "accumulate": state.accumulate,
        **_asked(state.engine.train),
        "data": hashed,
    }


def _asked(source: Adapter) -> dict[str, Any]:
    return {
        "loader seed": source.said("seed") if isinstance(source, Resumable) else None,
        "batch size": source.said("batch_size"),
    }


def _of_loader(source: Adapter | None, prefix: str, part: str) -> Facts:
    """Returns what a loader and its dataset say of themselves."""
    top = f"{prefix}data given"
    if source is None:
        return {top: Fact("no", (part,))}
    loader = source.loader
    found = {"loader": type(loader).__name__, "batches": len(source), **_asked(source)}
    found |= {name: source.said(name) for name in ("drop_last", "shuffle")}
    found["weights"] = source.said("weights") if isinstance(source, Resumable) else None
    if isinstance(loader, DataLoader):
        own_batches = loader.batch_size is None and loader.batch_sampler is not None
        found["sampler"] = type(loader.batch_sampler if own_batches else loader.sampler).__name__
    hashed = source.said("fingerprint")
    found["data"] = hashed if isinstance(hashed, str) else None
    found |= _of_dataset(source.said("dataset"), hashed=found["data"] is not None)
    texts = {name: value if isinstance(value, str) else plain_text(value) for name, value in found.items()}
    texts = {name: text for name, text in texts.items() if found[name] is not None}
    behind = {"data": _FINER, "files and labels": ("samples", "classes"), "labels": ("samples",)}
    behind["file contents"] = ("samples", "data", "files and labels")
    facts = {top: Fact("yes", (part,))}
    for name, text in texts.items():
        if text is not None:
            why = tuple(f"{prefix}{one}" for one in behind.get(name, ()))
            facts[f"{prefix}{name}"] = Fact(text, (part,), (*why, top) if prefix else why)
    return facts


def _of_dataset(dataset: Any, *, hashed: bool) -> dict[str, Any]:
    """Returns what a dataset says of its samples: how many, which labels and classes, how its files are decoded.

    Args:
        dataset: Any, or ``None``.
        hashed: Whether its loader has a hash of them: it takes time, and is not made twice.
    """
    if dataset is None or not hasattr(dataset, "__len__"):
        return {}
    whole, chosen = dataset, []
    while hasattr(whole, "dataset"):
        chosen.append(np.asarray(getattr(whole, "indices", [])))
        whole = whole.dataset
    classes = getattr(whole, "classes", None)
    found = {
        "samples": len(dataset),
        "dataset": type(dataset).__name__,
        "classes": [str(one) for one in classes] if isinstance(classes, list | tuple) else None,
        "background": getattr(whole, "background", None),
        "max_pixels": getattr(whole, "max_pixels", None),
        "file contents": dataset.content_digest() if hasattr(dataset, "content_digest") else None,
    }
    own = None if hashed else getattr(dataset, "fingerprint", None)
    if hashed or isinstance(own, str):
        return found | {"files and labels": own}
    return found | {"labels": _labels(getattr(whole, "targets", None)), "choice of samples": chosen or None}


def _root(dataset: Any) -> Any:
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dataset


def _labels(targets: Any) -> str | None:
    """Returns labels as text; ``None`` where they are no numbers or names in a row."""
    if isinstance(targets, list | tuple):
        plain = all(isinstance(one, int | float | str) for one in targets)
        return plain_text(np.asarray(targets)) if plain else None
    return None if targets is None else plain_text(targets)


def _of_transforms(source: Adapter | None, prefix: str) -> Facts:
    """Returns what happens to each sample: the loader's transform, and those that a dataset keeps, as torchvision's do."""
    if source is None:
        return {}
    found: Facts = {}
    if isinstance(source, Resumable):
        found |= _of_transform(source.said("transform"), f"{prefix}transform")
        prefix = f"{prefix}dataset's "
    whole = _root(source.said("dataset"))
    held = vars(whole) if hasattr(whole, "__dict__") else {}
    for name in ("transform", "target_transform", "transforms"):
        pair = type(held.get(name)).__name__ == "StandardTransform"  # torchvision's, made of the other two
        if name in held and not pair:
            found |= _of_transform(held[name], f"{prefix}{name}")
    collate = source.said("collate_fn")
    return found if collate is None else found | _of_transform(collate, f"{prefix}collate_fn")


def _of_transform(transform: Any, what: str) -> Facts:
    made = describe(transform)
    if not hasattr(transform, "to_config"):
        return _described(what, made, "transform")
    config = {key: str(value) for key, value in transform.to_config().items()}
    return _described(what, Description(config.get("name", made.shape), config, made.code), "transform")


# --- model, metrics, callbacks


def _of_model(model: nn.Module) -> Facts:
    """Returns what each layer is, dropout included, what each class computes, and which parameters are frozen."""
    layers = [path for path, _ in model.named_modules()]
    found = {"layers": Fact(f"{len(layers) - 1} ({digest(', '.join(layers))})", ("model",), ("the model",))}
    for path, one in model.named_modules():
        kind: Any = type(one)
        text = re.sub(" at 0x[0-9a-fA-F]+", "", f"{kind.__name__}({one.extra_repr()})")
        found[f"the layer {path}" if path else "the model"] = Fact(text, ("model",), ("the model",) if path else ())
        if code := _forward_code(kind):
            found[f"{kind.__name__}.forward's code"] = Fact(code, ("model",), ("the model",))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    found["frozen parameters"] = Fact(plain_text(frozen) or "", ("model",))
    return found


@functools.cache
def _forward_code(kind: Any) -> str:
    return describe(kind.forward).code


def _of_metrics(metrics: Mapping[str, Any]) -> Facts:
    found = {"metrics": Fact(", ".join(metrics) or "none", ("metrics",), ("loss",))}  # which some follow from
    for name, metric in metrics.items():
        found |= _described(f"metric {name}", describe(metric), "metrics", shape=f"the metric {name}")
    return found


def _of_callbacks(state: TrainState) -> Facts:
    """Returns what callbacks say of themselves by ``must_match``."""
    found: Facts = {}
    there: dict[str, list[str]] = {"callbacks": [], "schedule": []}
    for key, callback in state.engine.hooks.keyed() if state.engine.hooks is not None else ():
        said = ask(callback, "must_match")()
        part = str(ask(callback, "override"))
        if said and ask(callback, "order") == CHANGER:
            there.setdefault(part, []).append(key)
        for name, value in said.items():
            text = value if isinstance(value, str) else plain_text(value)
            found[f"{key}'s {name}"] = Fact(text if text is not None else describe(value).shape, (part,))
    for part, keys in there.items():
        name = "callbacks" if part == "callbacks" else f"callbacks of the {part}"
        found[name] = Fact(", ".join(sorted(keys)) or "none", (part,))
    return found


# --- optimizers and schedules


def option_names(optimizers: Iterable[Optimizer]) -> set[str]:
    """Returns the names of the options that optimizers have, by which ``override`` lets them change."""
    names = {key for one in optimizers for group in (one.defaults, *one.param_groups) for key in group}
    return names - _NO_OPTIONS


def option_texts(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the options of parameter groups as text, so that they can be compared."""
    shown = [{key: one for key, one in group.items() if key not in _NO_OPTIONS} for group in groups]
    return [{key: plain_text(float(v) if type(v) is int else v) or "" for key, v in group.items()} for group in shown]


def _of_optimizers(state: TrainState, all_options: Sequence[Sequence[Mapping[str, Any]]]) -> Facts:
    found = {"optimizer": Fact(", ".join(type(one).__name__ for one in state.optimizers), ("optimizer",))}
    sizes = "; ".join(", ".join(str(len(group["params"])) for group in one.param_groups) for one in state.optimizers)
    found["parameter groups"] = Fact(sizes, ("optimizer",), ("optimizer",))
    for number, (optimizer, groups) in enumerate(zip(state.optimizers, all_options, strict=True)):
        kind = type(optimizer).__name__
        mark = f"{kind}#{number + 1}" if len(state.optimizers) > 1 else kind
        for key, value in optimizer.defaults.items():
            if key in _NO_OPTIONS:
                continue
            found[f"{kind}'s {key}"] = Fact(str(value), (key, "optimizer"), ("optimizer",))
        said = option_texts(groups)
        for key in dict.fromkeys(key for group in said for key in group):
            texts = [group.get(key, "") for group in said]
            text = texts[0] if len(set(texts)) == 1 else ", ".join(texts)
            found[f"{mark}'s {key} by group"] = Fact(text, (key, "optimizer"), (f"{kind}'s {key}", "parameter groups"))
    return found


def _of_schedules(state: TrainState, factory: Any) -> Facts:
    found = {"schedule": Fact(", ".join(type(one).__name__ for one in state.schedules) or "none", ("schedule",))}
    for number, schedule in enumerate(state.schedules):
        mark = "schedule" if number == 0 else f"schedule#{number + 1}"
        for name, text in of_scheduler(schedule).items():
            found[f"the {mark}'s {name}"] = Fact(text, ("schedule",), ("schedule",), planned=True)
    if callable(factory):
        made = describe(factory)
        planned = {name: Fact(text, ("schedule",), ("schedule",), planned=True) for name, text in made.values.items()}
        found |= {f"the schedule factory's {name}": fact for name, fact in planned.items()}
        if made.code:
            found["the schedule factory's code"] = Fact(made.code, ("schedule",), ("schedule",))
    return found


def of_scheduler(schedule: LRScheduler) -> dict[str, str]:
    """Returns what a scheduler does, as text by name; how far it is, and from which rates it began, is left out."""
    config = {key: value for key, value in vars(schedule).items() if key not in _STEPPED}
    inner: Sequence[LRScheduler] = config.pop("_schedulers", ())
    kept = ("_milestones", "_schedule_phases", "_anneal_func_type", "_scale_fn_ref")
    found: dict[str, str] = {}
    for key in [*config, *(f"[{number}]" for number in range(len(inner)))]:
        if key.startswith("["):
            one = inner[int(key[1:-1])]
            found |= {key: type(one).__name__} | {f"{key}.{name}": text for name, text in of_scheduler(one).items()}
        elif not key.startswith("_") or key in kept:
            found |= _texts(key.strip("_"), describe(config[key]))
    return found


def _texts(name: str, found: Description) -> Mapping[str, str]:
    """Returns a description under a name: what it is, its values, and its code, each as one text."""
    texts = {name: found.shape}
    texts |= {f"{name}{path if path.startswith('[') else '.' + path}": text for path, text in found.values.items()}
    return texts | ({f"{name}'s code": found.code} if found.code else {})

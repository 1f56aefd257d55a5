"""Asking a model: over one batch, or over all of a loader, with which sample is which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cvkit import seeding
from cvkit.data import Loader, Subset
from cvkit.errors import ArgumentError
from cvkit.inference import Predictor
from cvkit.plots.images import Batch, as_batch
from cvkit.training import Runtime
from cvkit.training.loader_checks import check_loader
from cvkit.training.loaders import adapt
from cvkit.training.runtime import Precision

__all__ = ["InferenceFunction", "check_model", "inference_function", "iterate_epoch", "spread_over_dataset"]

InferenceFunction: TypeAlias = Callable[[Tensor], Tensor]


def check_model(model: object) -> None:
    """Refuses what cannot be asked.

    Raises:
        ArgumentError: Neither a module nor a predictor.
    """
    if not isinstance(model, nn.Module | Predictor):
        raise ArgumentError(
            "this is no model that can be asked",
            got=f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__,
            expected="an nn.Module, or what cvkit.load gives",
            fix="show_predictions(model, loader): first the model, then the data",
        )


@contextmanager
def inference_function(
    model: nn.Module | Predictor, device: str | torch.device = "auto", precision: Precision = "auto"
) -> Iterator[InferenceFunction]:
    """Gives a function from inputs to a model's outputs, in evaluation mode.

    The model's modes, and the random generators, are as before afterwards.

    Args:
        model: A module, which is moved to the device, or a predictor, which stays where it is.
        device: For a module: ``"auto"`` or a device.
        precision: For a module: as in ``fit``.

    Raises:
        ArgumentError: Something else.
    """
    check_model(model)
    runtime = model.runtime if isinstance(model, Predictor) else Runtime(device, precision)
    module = model.model if isinstance(model, Predictor) else runtime.prepare(model)
    modes = [(one, one.training) for one in module.modules()]
    module.eval()

    def infer(inputs: Tensor) -> Tensor:
        outputs = module(runtime.place(inputs))
        outputs = outputs["out"] if isinstance(outputs, Mapping) and "out" in outputs else outputs
        if not isinstance(outputs, Tensor):
            raise ArgumentError(
                "the model's outputs cannot be shown",
                got=type(outputs).__name__,
                expected="a tensor, or a dict with one under 'out', as torchvision's segmentation models give",
                fix="wrap the model in a module that returns the one tensor to be shown",
            )
        return _as_logits(outputs.float().cpu(), model)

    try:
        with torch.no_grad(), runtime.autocast(), seeding.preserved():
            yield infer
    finally:
        for one, mode in modes:
            one.training = mode


def _as_logits(outputs: Tensor, model: nn.Module | Predictor) -> Tensor:
    """Returns logits, also of a predictor whose model gives probabilities."""
    reader = getattr(model, "_reader", None)
    if reader is None or reader.logits or reader.task in ("regression", "reconstruction"):
        return outputs
    separate = reader.task == "multilabel" or outputs.ndim < 2 or outputs.shape[1] == 1
    return outputs.logit() if separate else outputs.log()


def spread_over_dataset(loader: Any, count: int) -> Any:
    """Returns a loader over ``count`` samples from all over the data of one of cvkit's in order; others as they are."""
    samples = len(loader.dataset) if isinstance(loader, Loader) else 0
    if samples <= count or loader.shuffle or loader.weights is not None:
        return loader
    places = [(2 * place + 1) * samples // (2 * count) for place in range(count)]
    part = Subset(loader.dataset, places)
    return Loader(
        part, count, transform=loader.transform, seed=loader.seed, workers=0, cache=None, classes=loader.given_classes
    )


def iterate_epoch(loader: Any) -> Iterator[tuple[Batch, list[int]]]:
    """Yields every batch of an epoch, with the places of its samples in the dataset.

    The loader stays where it is. A torch ``DataLoader`` over a dataset that can be indexed is iterated in the order of
    that, whatever its sampler, so that every sample comes once and it is known which it is.

    Raises:
        ArgumentError: Something that cannot be iterated.
    """
    check_loader("the loader", loader)
    if isinstance(loader, Loader):
        yield from _iterate_own(loader)
        return
    if isinstance(loader, DataLoader) and loader.batch_sampler is not None and hasattr(loader.dataset, "__getitem__"):
        loader = DataLoader(
            loader.dataset,
            batch_size=loader.batch_size or 64,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator(),
        )
    places = itertools.count()
    source = adapt(loader)
    with source.undisturbed():
        for raw in source.iterate():
            batch = as_batch(source.finish(raw))
            yield batch, list(itertools.islice(places, len(batch)))


def _iterate_own(loader: Loader) -> Iterator[tuple[Batch, list[int]]]:
    planned = loader.order()
    for raw in loader.batches():
        batch = as_batch(loader.finish(raw))
        indices = planned[raw.place].tolist()
        if len(indices) != len(batch):  # some could not be read, and were left out
            indices = [index for index in indices if index not in loader.skipped]
        yield batch, indices

"""Keras on torch, around the same torch module; its optimizer is its own (it takes none of torch's)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import keras
from torch.utils.data import DataLoader

from peers.work import FEATURES, LR, MOMENTUM, Tracked, Work


def _as_it_is(batch: Any) -> Any:
    return batch


def prepare(work: Work, bar: bool) -> Callable[[], Tracked]:
    """``Model.fit`` over a ``DataLoader`` that passes the finished batches on."""
    keras.backend.set_floatx("float32")
    model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.TorchModuleWrapper(work.model)])
    model.compile(
        optimizer=keras.optimizers.SGD(LR, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    loader = DataLoader(work.batches, batch_size=None, collate_fn=_as_it_is)

    def run() -> Tracked:
        history = model.fit(loader, epochs=1, verbose=1 if bar else 0).history
        return history["loss"][-1], history["accuracy"][-1]

    return run

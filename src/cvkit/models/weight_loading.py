"""Trained weights into a model whose head, input or stem is another."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cvkit.errors import ModelError
from cvkit.models.adapt import adapted
from cvkit.models.parts import find_heads
from cvkit.serialization import state_dicts

__all__ = ["fill", "first_convolution", "load_weights"]

_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")
"""How torchvision's files name DenseNet's layers, by names that modules no longer may have."""


def load_weights(model: nn.Module, path: str | Path, *, fresh: Collection[str] = ()) -> None:
    """Loads a state dict from a file into a model; nothing in the file is run.

    The heads stay fresh where the file has another number of classes, a first convolution of other channels is made to fit
    (:func:`cvkit.models.adapt_input`), and auxiliary classifiers that the model was built without are left out. Everything else
    has to match.

    Args:
        model: The model.
        path: A file that ``torch.save(model.state_dict(), path)`` wrote, one of safetensors, or a checkpoint of ``fit``.
        fresh: Names of weights that may be of another shape in the file, and then stay as they are.

    Raises:
        ModelError: No such file, no state dict, or one of another model.
    """
    path = Path(path).expanduser()
    fill(model, state_dicts.read(path), fresh=fresh, source=str(path))


def fill(model: nn.Module, state: Mapping[str, Any], *, source: str, fresh: Collection[str] = ()) -> None:
    """Loads a state dict into a model, as :func:`load_weights` does.

    Args:
        model: The model.
        state: The weights by name.
        source: Where they are from, for messages.
        fresh: As in :func:`load_weights`.

    Raises:
        ModelError: They are those of another model.
    """
    own = model.state_dict()
    found = state_dicts.matched({_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}, own)
    if odd := state_dicts.unusable_tensor(found, own):
        raise _unusable(model, odd, source)
    _fit(model, own, found, fresh)
    try:
        model.load_state_dict(found)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise _unusable(model, " ".join(f"{type(error).__name__}: {error}".split())[:400], source) from error


def _unusable(model: nn.Module, got: str, source: str) -> ModelError:
    return ModelError(
        f"the weights in {source} cannot be used",
        got=got,
        expected=f"a state dict of this {type(model).__name__}",
        fix="see that it was built with the same name and arguments",
    )


def _fit(model: nn.Module, own: Mapping[str, Tensor], found: dict[str, Any], fresh: Collection[str]) -> None:
    """Changes what was found to the shapes of the model's own, where that may be done."""
    tops = {key.partition(".")[0] for key in own}
    for key in [key for key in found if key.lower().startswith("aux") and key.partition(".")[0] not in tops]:
        del found[key]
    other = {
        key
        for key, value in own.items()
        if isinstance(found.get(key), Tensor) and found[key].shape != value.shape and value.ndim
    }
    found.update((key, own[key]) for key in other & set(fresh))
    first = first_convolution(model)
    name = f"{first[0]}.weight" if first is not None else None
    if name in other - set(fresh) and _same_but_channels(found[name], own[name]):
        found[name] = adapted(found[name], own[name].shape[1])
    if other - set(fresh) - {name}:
        for head, _ in find_heads(model):
            keys = [key for key in own if key.rpartition(".")[0] == head]
            if all(key in found for key in keys) and not other.isdisjoint(keys):
                found.update((key, own[key]) for key in keys)


def _same_but_channels(one: Tensor, other: Tensor) -> bool:
    return one.ndim == other.ndim == 4 and one.shape[0] == other.shape[0] and one.shape[2:] == other.shape[2:]


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Returns the path and the module of the first convolution, as the model lists them."""
    return next(((path, one) for path, one in model.named_modules() if isinstance(one, nn.Conv2d)), None)

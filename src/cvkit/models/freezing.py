"""What of a model is trained: freezing, and unfreezing by name or by depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from torch import nn

from cvkit.arguments import check_integer
from cvkit.errors import ArgumentError, unknown_name
from cvkit.models.parts import find_blocks, find_heads, inside
from cvkit.registry import model_tools

__all__ = ["freeze", "thaw", "unfreeze"]


@model_tools.register("freeze")
def freeze(model: nn.Module, *, keep: str | Sequence[str] | None = None) -> nn.Module:
    """Freezes everything but the head, in place: parameters, and the statistics of batch norms.

    What is frozen is marked (``module.cvkit_frozen``) and put into evaluation mode; ``fit`` keeps it there, each epoch again.
    In your own loop, call ``eval()`` on what is marked after each ``model.train()``.

    Args:
        model: A classifier; any module where ``keep`` is given.
        keep: Paths of the submodules or parameters that stay trainable, e.g. ``["layer4", "fc"]``; by default the head, with
            the last layers of auxiliary classifiers.

    Returns:
        The same model.

    Raises:
        ModelError: The head cannot be found.
        UnknownNameError: A path in ``keep`` that the model does not have.
    """
    kept = [path for path, _ in find_heads(model)] if keep is None else _checked(model, keep)
    thaw(model, [""])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(inside(name, path) for path in kept))
    for path, module in model.named_modules():
        module.cvkit_frozen = _is_frozen(path, module, kept)
    _rest(model)
    return model


@model_tools.register("unfreeze")
def unfreeze(model: nn.Module, name: str | Sequence[str] | None = None, *, depth: int | None = None) -> nn.Module:
    """Undoes :func:`freeze`, in place, for the whole model or for a part of it: it is trained again, and its marks are gone.

    During a run, ``fit`` trains what is unfrozen from then on, with an optimizer by name or by a factory; see
    :class:`cvkit.callbacks.GradualUnfreezing`.

    Args:
        model: A model.
        name: The path of a submodule or parameter, or several, e.g. ``"layer4"``.
        depth: The number of blocks to unfreeze from the end, the head counted: ``2`` is ``fc`` and ``layer4`` of a ResNet.
            :func:`cvkit.models.find_blocks` lists the blocks; as many as there are, or more, are the whole model.

    Returns:
        The same model.

    Raises:
        UnknownNameError: A path that the model does not have.
        ArgumentError: Both a name and a depth, or a depth below one.
    """
    if name is not None and depth is not None:
        raise ArgumentError(
            "unfreeze got both a name and a depth",
            got=f"name={name!r}, depth={depth}",
            expected="one of them, or neither for the whole model",
            fix="call it twice",
        )
    paths = [""] if name is None else _checked(model, name)
    if depth is not None:
        check_integer(
            "unfreeze: depth",
            depth,
            expected="an integer of 1 or more",
            fix="depth=1 is the head; use freeze(model, keep=[]) to freeze everything",
        )
        blocks = find_blocks(model)
        paths = list(chain.from_iterable(blocks[-depth:])) if depth < len(blocks) else [""]
    thaw(model, paths)
    return model


def thaw(model: nn.Module, paths: Iterable[str]) -> None:
    """Makes what is at and below some paths trainable, and takes the marks off it and off what is around it."""
    paths, mode = list(paths), model.training
    for name, parameter in model.named_parameters():
        if any(inside(name, path) for path in paths):
            parameter.requires_grad_(True)
    touched = [
        module
        for at, module in model.named_modules()
        if any(inside(at, path) or inside(path, at) for path in paths) and vars(module).pop("cvkit_frozen", False)
    ]
    for module in touched:
        module.train(mode)
    _rest(model)


def _checked(model: nn.Module, paths: str | Sequence[str]) -> list[str]:
    paths = [paths] if isinstance(paths, str) else list(paths)
    known = {name for name, _ in chain(model.named_modules(), model.named_parameters())}
    for path in paths:
        if path not in known:
            modules = [name for name, _ in model.named_modules() if name]
            raise unknown_name(f"submodule of {type(model).__name__}", path, modules)
    return paths


def _is_frozen(path: str, module: nn.Module, kept: Sequence[str]) -> bool:
    """Whether a module holds something, and none of it is trained.

    A dropout holds nothing: beside a trained head it goes on dropping, inside a frozen block it rests with the block.
    """
    holds = next(chain(module.parameters(), module.buffers()), None) is not None
    return holds and not any(inside(path, one) or inside(one, path) for one in kept)


def _rest(model: nn.Module) -> None:
    """Puts what is marked into evaluation mode."""
    for module in model.modules():
        if getattr(module, "cvkit_frozen", False):
            module.eval()

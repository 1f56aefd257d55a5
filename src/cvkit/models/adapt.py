"""Changing a model that is there: its head, and what of it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from cvkit.errors import ArgumentError, ModelError, unknown_name

__all__ = ["find_head", "freeze", "replace_head", "unfreeze"]


def find_head(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Returns the path and the module of a classifier's head: the last layer with weights, as the model lists them.

    Raises:
        ModelError: That layer is neither linear nor a convolution.
    """
    path, last = "", model
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            path, last = name, module
    if not isinstance(last, nn.Linear | nn.Conv2d):
        raise ModelError(
            f"no head found in {type(model).__name__}",
            got=f"{type(last).__name__} {path!r} as its last layer" if path else "no layer with weights",
            expected="a classifier whose last layer is linear or a convolution",
            fix="replace or freeze its layers by hand",
        )
    return path, last


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Gives a classifier a new head with ``num_classes`` outputs, in place; its weights are fresh and trainable.

    Args:
        model: A classifier whose last layer is linear or a convolution.
        num_classes: The new number of outputs.

    Returns:
        The same model.

    Raises:
        ArgumentError: Fewer than one class.
        ModelError: No such layer, or the model is nothing but this layer.
    """
    if num_classes < 1:
        raise ArgumentError(
            "replace_head: num_classes cannot be used", got=num_classes, expected="1 or more", fix="count the classes"
        )
    path, head = find_head(model)
    if not path:
        raise ModelError(
            "a model that is its own head cannot be given another",
            got=type(model).__name__,
            expected="a model with the head as one of its layers",
            fix=f"build it with {num_classes} outputs",
        )
    new: nn.Module
    if isinstance(head, nn.Linear):
        new = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    else:
        new = like(head, out_channels=num_classes)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new.to(head.weight.device, head.weight.dtype))
    config = getattr(model, "cvkit_config", None)
    if config is not None:
        model.cvkit_config = {**config, "num_classes": num_classes}  # type: ignore[assignment]
    return model


def like(
    layer: nn.Conv2d, *, in_channels: int | None = None, out_channels: int | None = None, groups: int | None = None
) -> nn.Conv2d:
    """Returns a fresh convolution that differs from ``layer`` in what is given only."""
    return nn.Conv2d(
        in_channels or layer.in_channels,
        out_channels or layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        groups or layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )


def freeze(model: nn.Module, *, keep: Sequence[str] | None = None) -> nn.Module:
    """Freezes everything but the head, in place: parameters, and the statistics of batch norms.

    What is frozen is marked (``module.cvkit_frozen``) and put into evaluation mode; ``fit`` keeps it there, each epoch again.
    In a loop of your own, call ``eval()`` on what is marked after each ``model.train()``.

    Args:
        model: A classifier; any module where ``keep`` is given.
        keep: Paths of the submodules that stay trainable, e.g. ``["layer4", "fc"]``; the head by default.

    Returns:
        The same model.

    Raises:
        ModelError: The head cannot be found.
        UnknownNameError: A path in ``keep`` that the model does not have.
    """
    modules = dict(model.named_modules())
    kept = [find_head(model)[0]] if keep is None else list(keep)
    for path in kept:
        if path not in modules:
            raise unknown_name(f"submodule of {type(model).__name__}", path, [name for name in modules if name])
    model.requires_grad_(False)
    for path in kept:
        modules[path].requires_grad_(True)
    for module in model.modules():
        module.cvkit_frozen = _is_frozen(module)  # type: ignore[assignment]
        if module.cvkit_frozen:
            module.eval()
    return model


def _is_frozen(module: nn.Module) -> bool:
    """Whether a module holds something, and none of it is trained.

    A dropout holds nothing: beside a trained head it goes on dropping, inside a frozen block it rests with the block.
    """
    holds = next(_state(module), None) is not None
    return holds and not any(parameter.requires_grad for parameter in module.parameters())


def _state(module: nn.Module) -> Iterator[object]:
    yield from module.parameters()
    yield from module.buffers()


def unfreeze(model: nn.Module) -> nn.Module:
    """Undoes :func:`freeze`, in place: every parameter is trained again, and every mark is gone.

    Returns:
        The same model.
    """
    model.requires_grad_(True)
    for module in model.modules():
        if vars(module).pop("cvkit_frozen", False):
            module.train(model.training)
    return model

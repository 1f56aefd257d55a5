"""Changing a model that is there: its head, and what of it is trained."""

from __future__ import annotations

from torch import nn

from cvkit.errors import ModelError

__all__ = ["find_head", "freeze", "replace_head", "unfreeze"]


def find_head(model: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Returns the path and the module of the last linear layer (or 1×1 convolution): the classifier's head.

    Raises:
        ModelError: The model has neither.
    """
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    ]
    linear = [pair for pair in found if isinstance(pair[1], nn.Linear)]
    if not found:
        raise ModelError(
            f"no head found in {type(model).__name__}",
            got="no linear layer and no 1×1 convolution",
            expected="a classifier that ends in one",
            fix="replace or freeze its layers by hand",
        )
    return linear[-1] if linear and found[-1][0].startswith(("aux", "features")) else found[-1]


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Replaces the last layer by a new one with ``num_classes`` outputs, in place.

    Args:
        model: A classifier that ends in a linear layer or a 1×1 convolution.
        num_classes: The new number of outputs.

    Returns:
        The same model.

    Raises:
        ModelError: No such layer.
    """
    path, head = find_head(model)
    if isinstance(head, nn.Linear):
        new: nn.Module = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    else:
        new = nn.Conv2d(head.in_channels, num_classes, 1, bias=head.bias is not None)
    parent, _, name = path.rpartition(".")
    if not name:
        raise ModelError(
            "a model that is its own head cannot be given another", got=type(model).__name__, fix="build a new one"
        )
    setattr(model.get_submodule(parent), name, new)
    return model


def freeze(model: nn.Module, *, head: bool = False) -> nn.Module:
    """Freezes everything but the head, in place: parameters, and the statistics of batch norms.

    ``fit`` keeps what is marked here in evaluation mode, each epoch again.

    Args:
        model: A classifier.
        head: Whether the head is frozen too.

    Returns:
        The same model.

    Raises:
        ModelError: The head cannot be found.
    """
    model.requires_grad_(False)
    if not head:
        find_head(model)[1].requires_grad_(True)
    for module in model.modules():
        module.cvkit_frozen = not any(p.requires_grad for p in module.parameters())  # type: ignore[assignment]
        if module.cvkit_frozen:
            module.eval()
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Undoes :func:`freeze`, in place.

    Returns:
        The same model.
    """
    model.requires_grad_(True)
    for module in model.modules():
        module.cvkit_frozen = False  # type: ignore[assignment]
    return model

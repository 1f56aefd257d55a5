"""Parameter groups for an optimizer: no decay where it does harm, and a learning rate for each part."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from cvkit.arguments import check_number
from cvkit.models.parts import find_blocks, find_heads, inside

__all__ = ["param_groups"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)

_EMBEDDED = ("request", "pos_emb", "position", "query_embed")
"""In names of parameters that are added to features rather than multiplied with them. Source: torchvision's reference
training of classifiers (``transformer_embedding_decay``, ``custom_keys_weight_decay``) and timm's ``no_weight_decay``."""


def param_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    head_lr: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Divides the parameters of a model into groups for an optimizer.

    Biases, norms, class tokens and position embeddings are not decayed. The head may have a learning rate of its own, and each
    block (:func:`cvkit.models.find_blocks`) one that is smaller the farther it is from the head:
    ``lr * layer_decay ** distance``, the head being at distance 0. Source: Howard and Ruder, Universal Language Model
    Fine-tuning, 2018 (discriminative fine-tuning); Bao et al., BEiT, 2022, which decays by 0.65 to 0.85.

    Frozen parameters are in the groups too: without gradients an optimizer leaves them as they are, and it has them when they
    are unfrozen. A schedule of ``fit`` scales every group's rate; the ``lr`` that is logged is the first group's, the head's.

    Example::

        groups = cvkit.models.param_groups(model, lr=1e-4, head_lr=1e-3, weight_decay=0.05)
        cvkit.fit(model, train, val, epochs=10, optimizer=torch.optim.AdamW(groups), schedule="cosine")

    Args:
        model: A model.
        lr: Learning rate.
        weight_decay: Decay of the weights of linear, convolutional and other multiplying layers.
        head_lr: Learning rate of the head (the last layer, and those of auxiliary classifiers); ``lr`` by default.
        layer_decay: Factor from a block to the one before it, above 0 and at most 1.

    Returns:
        The groups, the head's first, each ``{"params", "lr", "weight_decay", "name"}``.

    Raises:
        ArgumentError: A number out of range.
        ModelError: ``head_lr`` for a model without a head.
    """
    _check({"lr": lr, "weight_decay": weight_decay, **({} if head_lr is None else {"head_lr": head_lr})}, layer_decay)
    heads = [path for path, _ in find_heads(model)] if head_lr is not None else []
    blocks = find_blocks(model) if layer_decay != 1 else []
    skip = _not_decayed(model)
    groups: dict[tuple[int, str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        in_head = any(inside(name, path) for path in heads)
        distance = _distance(name, blocks)
        part = "head" if in_head else "/".join(blocks[-1 - distance]) if blocks else "backbone" if heads else "all"
        rate = head_lr if in_head and head_lr is not None else lr * layer_decay**distance
        decayed = name not in skip
        group = groups.setdefault(
            (-1 if in_head else distance, part, not decayed),
            {
                "params": [],
                "lr": rate,
                "weight_decay": weight_decay if decayed else 0.0,
                "name": part if decayed else f"{part}, not decayed",
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def _check(rates: dict[str, float], layer_decay: float) -> None:
    for label, value in rates.items():
        fix = f"pass e.g. {label}={'0.05' if label == 'weight_decay' else '1e-3'}"
        check_number(f"param_groups: {label}", value, at_least=0, expected="a number of at least 0", fix=fix)
    check_number(
        "param_groups: layer_decay",
        layer_decay,
        above=0,
        at_most=1,
        expected="a number above 0 and at most 1",
        fix="pass e.g. layer_decay=0.75; 1 gives every block the same rate",
    )


def _distance(name: str, blocks: list[tuple[str, ...]]) -> int:
    """Returns how many blocks lie between a parameter's and the end; one outside all blocks belongs with the first."""
    for distance, paths in enumerate(reversed(blocks)):
        if any(inside(name, path) for path in paths):
            return distance
    return max(len(blocks) - 1, 0)


def _not_decayed(model: nn.Module) -> set[str]:
    """Returns the names of biases, norms' weights, scales and embeddings, and of what a model of timm's lists itself."""
    listed = getattr(model, "no_weight_decay", None)
    found = set(listed()) if callable(listed) else set()
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            flat = sum(side > 1 for side in parameter.shape) <= 1 and own != "weight"  # a scale such as (C, 1, 1)
            if (
                parameter.ndim <= 1
                or flat
                or own.endswith("bias")
                or isinstance(module, _NORMS)
                or any(part in own for part in _EMBEDDED)
            ):
                found.add(f"{path}.{own}" if path else own)
    return found

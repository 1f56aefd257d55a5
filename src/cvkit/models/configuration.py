"""What a configuration of a model may hold: a name, and arguments of its architecture from a list for each family.

A configuration comes from a file as a rule, and whoever wrote the file chose it. None of the arguments here makes a builder
download, open or import anything.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from cvkit.errors import ArgumentError, ModelError, unknown_name
from cvkit.plain_values import WEIGHTS, oddity, shown, text_oddity

__all__ = ["APPENDED", "TIMM", "check", "named", "takes"]

TIMM = "timm:"
APPENDED = "appended"

_EVERY = frozenset({"num_classes", "in_channels", "stem"})
_MOST_APPENDED = 100
_MOST_LAYERS = 1_000  # of one stage of a model

_TORCHVISION = frozenset(
    {
        *("attention_dropout", "aux_logits", "aux_loss", "bn_size", "drop_rate", "dropout", "dropout_aux", "groups"),
        *("growth_rate", "image_size", "init_weights", "input_size", "last_channel", "layer_scale", "memory_efficient"),
        *("mlp_dropout", "num_init_features", "reduced_tail", "dilated", "replace_stride_with_dilation"),
        *("representation_size", "round_nearest", "squeeze_ratio", "expansion_ratio", "mlp_ratio", "stem_width"),
        *("stochastic_depth_prob", "transform_input", "width_mult", "width_per_group", "zero_init_residual"),
        *("block_config", "inverted_residual_setting"),
    }
)
"""What torchvision's builders take of an architecture; its weights are no part of that."""

_TIMM = frozenset(
    {
        *("act_layer", "aa_layer", "norm_layer", "attn_drop_rate", "avg_down", "base_width", "block_reduce_first"),
        *("bn_size", "cardinality", "channels", "class_token", "conv_bias", "conv_mlp", "depth", "depths", "dims"),
        *("distilled", "down_kernel_size", "drop_block_rate", "drop_path_rate", "drop_rate", "dynamic_img_pad"),
        *("dynamic_img_size", "embed_dim", "embed_dims", "expand_ratio", "fc_norm", "final_norm", "fix_stem"),
        *("global_pool", "groups", "growth_rate", "head_bias", "head_dim", "head_hidden_size", "head_init_scale"),
        *("head_norm_first", "img_size", "init_values", "kernel_size", "kernel_sizes", "layers"),
        *("layer_scale_init_value", "ls_init_value", "mlp_bias", "mlp_ratio", "mlp_ratios", "no_embed_class"),
        *("norm_eps", "num_features", "num_heads", "num_init_features", "output_stride", "pad_type"),
        *("patch_drop_rate", "patch_norm", "patch_size", "pos_drop_rate", "pos_embed", "pre_norm", "proj_bias"),
        *("proj_drop_rate", "qk_norm", "qkv_bias", "reg_tokens", "replace_stem_pool", "scale_attn_norm"),
        *("scale_mlp_norm", "se_layer", "stem_kernel_size", "stem_size", "stem_type", "stem_width", "strict_img_size"),
        *("use_abs_pos_emb", "use_grn", "use_rel_pos_bias", "use_shared_rel_pos_bias", "weight_init", "width"),
        *("window_ratio", "window_size", "zero_init_last"),
    }
)
"""What timm's models take of an architecture. ``timm.create_model`` takes more: places of weights and configurations."""

_COUNTS = ("depth", "depths", "layers", "block_config")
_TIMM_NAME = re.compile(r"timm:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")


def takes(name: str, builder: Callable[..., nn.Module] | None) -> frozenset[str]:
    """Returns the arguments that a configuration of a model may hold.

    Args:
        name: The model's name.
        builder: Its builder, where it is a registered one. What that takes by name counts, and what it would gather in
            ``**kwargs`` does not, but for the numbers of classes and channels.
    """
    if builder is not None:
        parameters = inspect.signature(builder).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        taken = {one.name for one in parameters if one.kind in kinds}
        if any(one.kind is one.VAR_KEYWORD for one in parameters):
            taken |= {"num_classes", "in_channels"}
        return frozenset(taken - WEIGHTS)
    return (_EVERY | (_TIMM if name.startswith(TIMM) else _TORCHVISION)) - WEIGHTS


def named(config: object) -> str:
    """Returns the name in a configuration.

    Raises:
        ModelError: It is none, or has no usable name.
    """
    name = config.get("name") if isinstance(config, Mapping) else None
    if isinstance(name, str) and name and text_oddity(name) is None:
        return name
    raise ModelError(
        "this is no configuration of a model",
        got=shown(config),
        expected="name, num_classes and the builder's arguments",
        fix="pass model.cvkit_config of a model that cvkit.models.create made",
    )


def check(config: Mapping[str, Any], builder: Callable[..., nn.Module] | None) -> tuple[dict[str, Any], list[int]]:
    """Returns the arguments in a configuration and what was appended to its model.

    What says where weights come from is left out.

    Args:
        config: A configuration with a name, see :func:`named`.
        builder: The builder, where the name is registered.

    Raises:
        UnknownNameError: An argument that is not of the architecture.
        ArgumentError: A value that is not plain, or far too large.
        ModelError: A name that is none of timm's.
    """
    name = config["name"]
    if builder is None and name.startswith(TIMM) and not _TIMM_NAME.fullmatch(name):
        raise ModelError(
            "this is no name of a model of timm's",
            got=shown(name),
            expected="timm: and a name of timm.list_models()",
            fix="a model of a hub or a folder is built by you: pass the model",
        )
    arguments = {key: value for key, value in config.items() if key not in ("name", APPENDED, *WEIGHTS)}
    known = takes(name, builder)
    for key, value in arguments.items():
        if key not in known:
            shortly = key if isinstance(key, str) and text_oddity(key) is None else shown(key)
            raise unknown_name(f"argument of the architecture {name!r}:", shortly, known)
        why = oddity(value) or (_uncountable(value) if builder is None and key in _COUNTS else None)
        if why is not None:
            raise ArgumentError(
                f"the configuration of {name!r} has a {key} that cannot be used",
                got=why,
                expected="a plain value of a size that a model can have",
                fix="pass model.cvkit_config of a model that cvkit.models.create made",
            )
    return arguments, _appended(name, config.get(APPENDED, []))


def _uncountable(value: object) -> str | None:
    """Returns the number of layers that is too large, if one is."""
    if isinstance(value, list | tuple):
        return next((why for one in value if (why := _uncountable(one)) is not None), None)
    return f"{value} layers" if isinstance(value, int) and value > _MOST_LAYERS else None


def _appended(name: str, given: object) -> list[int]:
    listed = given if isinstance(given, list | tuple) else None
    if listed is None or len(listed) > _MOST_APPENDED or oddity(listed) or not all(type(one) is int for one in listed):
        raise ArgumentError(
            f"the configuration of {name!r} has an {APPENDED} that cannot be used",
            got=shown(given),
            expected="the outputs of each layer that append_head put behind the head",
            fix="pass model.cvkit_config of a model that cvkit.models.create made",
        )
    return list(listed)

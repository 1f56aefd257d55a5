"""What a configuration of a preset may hold; it comes from a file as a rule, and whoever wrote the file chose it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from cvkit.errors import ArgumentError
from cvkit.plain_values import oddity, shown, text_oddity

__all__ = ["check_options", "configured"]

_SIDES = ("size", "resize", "padding")
_LONGEST_SIDE = 16_384
"""Pixels. An image of this size takes 3 GiB as the model's input."""


def configured(config: object) -> tuple[str, dict[str, Any]]:
    """Returns the preset's name and the arguments in a configuration, lists as tuples.

    Raises:
        ArgumentError: It is no dictionary, or its name is none that a preset could have.
    """
    name = config.get("name", "") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(name, str) or text_oddity(name) is not None:
        raise ArgumentError(
            "this is no configuration of a preset",
            got=shown(config),
            expected="its name and arguments",
            fix="pass what to_config() returned",
        )
    given = {key: value for key, value in config.items() if key != "name"}
    return name, {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def check_options(name: str, options: Mapping[str, Any], accepted: inspect.Signature) -> None:
    """Refuses what no preset writes into its configuration.

    Args:
        name: The preset.
        options: The arguments.
        accepted: What its builder takes.

    Raises:
        ArgumentError: A value of another type than the argument's default, no finite number, or a size that no image has.
    """
    gathers = any(one.kind is one.VAR_KEYWORD for one in accepted.parameters.values())
    for key, value in options.items():
        default = accepted.parameters[key].default if key in accepted.parameters else None
        why = oddity(value) or _mismatch(value, default)
        if gathers and key not in accepted.parameters:
            why = "no argument that its builder names"
        if why is None and key in _SIDES and isinstance(value, int) and value > _LONGEST_SIDE:
            why = f"{value}, beyond {_LONGEST_SIDE} pixels"
        if why is not None:
            raise ArgumentError(
                f"the configuration of the preset {name!r} has a {shown(key)[1:-1]} that cannot be used",
                got=why,
                expected="a plain value, such as the preset has by default",
                fix="pass what to_config() returned",
            )


def _mismatch(value: object, default: object) -> str | None:
    """Returns a value that is of another kind than an argument's default; numbers may be integers or not."""
    numbers = isinstance(default, int | float) and not isinstance(default, bool)
    if numbers and type(value) not in (int, float):
        return shown(value)
    if isinstance(default, tuple) and default and not isinstance(value, tuple):
        return shown(value)
    if isinstance(default, tuple) and isinstance(value, tuple):
        plain = all(type(one) in (int, float) for one in default)
        return next((shown(one) for one in value if plain and type(one) not in (int, float)), None)
    return None

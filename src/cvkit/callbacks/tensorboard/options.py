"""The arguments of ``TensorBoard``, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvkit.callbacks.tensorboard.describe import Plain
from cvkit.errors import ArgumentError

__all__ = ["Options", "check"]

_NEEDS = {
    "histograms": ("add_histogram_raw",),
    "graph": ("add_graph",),
    "images": ("add_image",),
    "embeddings": ("add_embedding",),
    "hparams": ("add_hparams",),
    "figures": ("add_image", "add_pr_curve_raw"),
    "text": ("add_text",),
}
"""What a writer of somebody else's must be able to do for each option."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is written.

    Attributes:
        every_steps: How many updates lie between two points.
        histograms: How many epochs lie between two histograms; 0 for none.
        graph: Whether the model's graph is.
        images: How many images are in a grid; 0 for none.
        embeddings: How many samples are in the projector; 0 for none.
        hparams: Hyperparameters; ``True`` for the settings of the run, ``None`` for none.
        figures: Whether confusion matrix and precision-recall curves are.
        text: Whether settings and model are described; a text stands above them.
    """

    every_steps: int
    histograms: int
    graph: bool
    images: int
    embeddings: int
    hparams: dict[str, Plain] | bool | None
    figures: bool
    text: bool | str


def check(target: Any, comment: object, **given: Any) -> Options:
    """Checks the arguments.

    Args:
        target: The directory, ``None``, or a writer.
        comment: What is added to the name of a directory that is not given.
        **given: The others, by name.

    Raises:
        ArgumentError: One that cannot be used, or that a given writer has no method for.
    """
    _check_target(target, comment)
    _check_integer("every_steps", given["every_steps"], 1, "50")
    for name in ("images", "embeddings"):
        _check_integer(name, given[name], 0, "16" if name == "images" else "500")
    for name in ("graph", "figures"):
        if not isinstance(given[name], bool):
            raise ArgumentError(
                f"{name} cannot be used", got=repr(given[name]), expected="True or False", fix=f"{name}=True"
            )
    if not isinstance(given["histograms"], bool):
        _check_integer("histograms", given["histograms"], 0, "True, or histograms=5 for every fifth epoch")
    if not (given["text"] is None or isinstance(given["text"], bool | str)):
        raise ArgumentError(
            "text cannot be used",
            got=repr(given["text"]),
            expected="True, False, or a text in Markdown",
            fix='text="The first run with more data."',
        )
    hparams = _check_hparams(given["hparams"])
    text = given["text"]
    if text is None:  # nobody asked: it is written where it can be
        text = _is_path(target) or hasattr(target, "add_text")
    options = Options(**{**given, "histograms": int(given["histograms"]), "hparams": hparams, "text": text})
    if not _is_path(target):
        _check_methods(target, options)
    return options


def _is_path(target: object) -> bool:
    return target is None or isinstance(target, str | Path)


def _check_target(target: object, comment: object) -> None:
    if not _is_path(target) and (isinstance(target, type) or not callable(getattr(target, "add_scalar", None))):
        raise ArgumentError(
            "TensorBoard cannot write to this",
            got=f"the class {target.__name__}" if isinstance(target, type) else repr(target),
            expected="a directory, or a writer with add_scalar(tag, value, step)",
            fix='TensorBoard("runs/a"), or TensorBoard(torch.utils.tensorboard.SummaryWriter("runs/a"))',
        )
    if not isinstance(comment, str) or "/" in comment or "\\" in comment:
        raise ArgumentError(
            "comment cannot be used",
            got=repr(comment),
            expected="what the directory's name is to end with, without a slash",
            fix='comment="-lr0.1"',
        )
    if comment and target is not None:
        raise ArgumentError(
            "comment is for a directory that names itself",
            got=f"comment={comment!r} beside {target!r}",
            expected="one of both",
            fix="leave out the directory, or put the comment into its name",
        )


def _check_integer(name: str, value: object, least: int, example: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        expected = f"at least {least}" if isinstance(value, int) and not isinstance(value, bool) else "an integer"
        raise ArgumentError(f"{name} cannot be used", got=repr(value), expected=expected, fix=f"{name}={example}")


def _check_hparams(given: Any) -> dict[str, Plain] | bool | None:
    if given is None or isinstance(given, bool):
        return given or None
    fix = 'hparams={"lr": 1e-3, "augment": "mixup"}, or hparams=True for the settings of the run'
    if not isinstance(given, Mapping):
        raise ArgumentError("hparams cannot be used", got=repr(given), expected="names and values", fix=fix)
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, bool | int | float | str):
            raise ArgumentError(
                f"hparams: {name!r} cannot be used",
                got=f"{value!r} ({type(value).__name__})",
                expected="names with booleans, numbers and strings",
                fix=fix,
            )
    return dict(given) or None


def _check_methods(writer: object, options: Options) -> None:
    lacking = {
        option: [method for method in methods if not callable(getattr(writer, method, None))]
        for option, methods in _NEEDS.items()
        if getattr(options, option)
    }
    told = {option: methods for option, methods in lacking.items() if methods}
    if told:
        raise ArgumentError(
            f"the writer {type(writer).__name__} cannot write what is asked for",
            got="; ".join(f"no {', '.join(methods)} for {option}" for option, methods in told.items()),
            expected="a writer with these methods, as torch's SummaryWriter has",
            fix=f"leave out {', '.join(told)}, or pass a directory",
        )

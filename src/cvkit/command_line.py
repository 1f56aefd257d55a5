"""``python -m cvkit train | predict | report | export``: the public functions, from a shell.

=========================  ========================================================================
``train DATA``             one call of ``fit``; with ``--show-code`` the script that does the same
``predict FILE IMAGES…``   what a checkpoint says of images
``report``                 versions and devices, for a bug report
``export FILE OUT``        a checkpoint as ``.onnx`` or ``.pt2``
=========================  ========================================================================
"""

# argparse and not typer: it is part of Python, so that the commands work wherever cvkit does, without a seventh dependency.

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cvkit import report
from cvkit.callbacks import Checkpoint, TensorBoard
from cvkit.data import from_folder
from cvkit.errors import CvkitError
from cvkit.inference import load
from cvkit.models import create
from cvkit.training import FitResult, fit

__all__ = ["Plan", "main"]

_SCRIPT = """\
import torch

import cvkit
from cvkit.callbacks import {imports}


def main():
    torch.manual_seed({seed})  # decides the first weights
    data = cvkit.data.from_folder({data})
    model = cvkit.models.create({model})
    result = cvkit.fit(
        model,
        data.train,
        data.val,
        {fit},
        callbacks=[{callbacks}],
    )
    print(result)


if __name__ == "__main__":
    main()
"""

_DATA = ("size", "batch_size", "val", "workers", "seed")
_MODEL = ("pretrained", "freeze")
_FIT = (
    *("epochs", "max_steps", "loss", "optimizer", "lr", "schedule", "warmup", "accumulate", "clip_norm"),
    *("device", "precision", "compile", "seed", "deterministic", "resume", "dry_run"),
)


@dataclass(frozen=True)
class Plan:
    """What ``train`` was asked for: run here, or written as a script.

    Attributes:
        seed: Decides the first weights, the order and the augmentation.
        data: Arguments of ``from_folder``; the first goes in by its place.
        model: Arguments of ``create``, but for the number of classes; the first goes in by its place.
        fit: Arguments of ``fit`` by name.
        callbacks: Classes with their arguments.
    """

    seed: int
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    fit: Mapping[str, Any]
    callbacks: Sequence[tuple[type[Any], Mapping[str, Any]]]

    @classmethod
    def of(cls, options: argparse.Namespace) -> Plan:
        """Returns the plan of parsed options; what was not given is left to the defaults of the functions."""
        given = vars(options)
        directory = {"directory": given["out"]}
        kept = {**directory, **({"monitor": given["monitor"]} if "monitor" in given else {})}
        board: list[tuple[type[Any], Mapping[str, Any]]] = [(TensorBoard, directory)] if "tensorboard" in given else []
        return cls(
            given["seed"],
            {"root": given["data"], **{name: given[name] for name in _DATA if name in given}},
            {"name": given["model"], **{name: given[name] for name in _MODEL if name in given}},
            {name: given[name] for name in _FIT if name in given},
            [(Checkpoint, kept), *board],
        )

    def run(self) -> FitResult:
        """Trains; the same calls as :meth:`script` writes."""
        torch.manual_seed(self.seed)
        root, name = self.data["root"], self.model["name"]
        data = from_folder(root, **{key: value for key, value in self.data.items() if key != "root"})
        more = {key: value for key, value in self.model.items() if key != "name"}
        model = create(name, num_classes=len(data.classes), **more)
        callbacks = [kind(*_parts(known)[0], **_parts(known)[1]) for kind, known in self.callbacks]
        return fit(model, data.train, data.val, **self.fit, callbacks=callbacks)

    def script(self) -> str:
        """Returns a script that does what :meth:`run` does."""
        first, *rest = self.model.items()
        made = [repr(first[1]), "num_classes=len(data.classes)", *(f"{key}={value!r}" for key, value in rest)]
        return _SCRIPT.format(
            seed=self.seed,
            imports=", ".join(sorted(kind.__name__ for kind, _ in self.callbacks)),
            data=_call(self.data),
            model=", ".join(made),
            fit=",\n        ".join(f"{key}={value!r}" for key, value in self.fit.items()),
            callbacks=", ".join(f"{kind.__name__}({_call(known)})" for kind, known in self.callbacks),
        )


def _parts(known: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Returns arguments as a call takes them: the first by its place, the others by name."""
    first, *rest = known.items()
    return [first[1]], dict(rest)


def _call(known: Mapping[str, Any]) -> str:
    """Returns arguments as they are written."""
    place, named = _parts(known)
    return ", ".join([repr(place[0]), *(f"{key}={value!r}" for key, value in named.items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    An error of cvkit's is printed as its text, without a traceback.

    Args:
        arguments: The words of the command; by default those that the program was started with.

    Returns:
        The exit code: 0, 1 after an error, or 130 for a training that Ctrl-C ended.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except CvkitError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return code


def _train(options: argparse.Namespace) -> int:
    plan = Plan.of(options)
    if "show_code" in options:
        sys.stdout.write(plan.script())
        return 0
    result = plan.run()
    sys.stdout.write(f"{result}\n")
    return 130 if result.stop_reason == "interrupted" else 0


def _predict(options: argparse.Namespace) -> int:
    predictor = load(options.checkpoint, device=options.device)
    found = predictor.predict(options.images, tta=options.tta, on_error=options.on_error)
    if options.csv is not None:
        found.to_csv(options.csv)
        sys.stdout.write(f"{len(found)} predictions in {options.csv}\n")
        return 0
    for one in found:
        sys.stdout.write(f"{one.path}: {one}\n")
    return 0


def _report(options: argparse.Namespace) -> int:
    report.main()
    return 0


def _export(options: argparse.Namespace) -> int:
    sys.stdout.write(f"{load(options.checkpoint, device='cpu').export(options.out)}\n")
    return 0


def _share_or_name(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _whole_or_share(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _workers(text: str) -> str | int:
    return text if text == "auto" else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m cvkit", description="Training components for computer vision.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    predict = commands.add_parser("predict", help="say what is on images")
    predict.add_argument("checkpoint", help="a file of a run, e.g. runs/a/best.pt")
    predict.add_argument("images", nargs="+", help="image files or folders")
    predict.add_argument("--csv", help="write a table instead of printing")
    predict.add_argument("--tta", choices=["flip"], help="average over the image and its mirror image")
    predict.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="what an unreadable image does")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    predict.set_defaults(command=_predict)
    commands.add_parser("report", help="versions and devices, for a bug report").set_defaults(command=_report)
    export = commands.add_parser("export", help="write a checkpoint as a program that runs without cvkit")
    export.add_argument("checkpoint", help="a file of a run, e.g. runs/a/best.pt")
    export.add_argument("out", help="a file that ends in .onnx or .pt2")
    export.set_defaults(command=_export)
    return parser


def _add_train(commands: Any) -> None:
    # an option that is not given stays out of the calls, so that the functions' own defaults hold
    train = commands.add_parser("train", help="train a model on a folder of images", argument_default=argparse.SUPPRESS)
    add = train.add_argument
    add("data", help="a directory: train/<class>/… and val/<class>/…, or <class>/… with --val 0.2")
    add("--model", required=True, help="a name of cvkit.models.names(), e.g. resnet18")
    add("--epochs", type=int, required=True, help="the total number of epochs")
    add("--out", required=True, help="the run's directory")
    add("--size", type=int, default=224, help="side of the model's input in pixels (%(default)s)")
    add("--batch-size", type=int, default=64, help="samples to a batch (%(default)s)")
    add("--val", type=_share_or_name, help="the validation folder's name, or the share to split off")
    add("--workers", type=_workers, help="processes that decode")
    add("--pretrained", action="store_true", help="start from pretrained weights")
    add("--freeze", action="store_true", help="train the head only")
    add("--loss", help="e.g. cross_entropy, label_smoothing")
    add("--optimizer", help="e.g. adamw, momentum")
    add("--lr", type=float, help="learning rate")
    add("--schedule", help="e.g. cosine, onecycle")
    add("--warmup", type=_whole_or_share, help="updates, or share of the run, in which the rate rises")
    add("--max-steps", type=int, help="the total number of updates")
    add("--accumulate", type=int, help="batches to one update")
    add("--clip-norm", type=float, help="bound on the gradient norm")
    add("--device", help="auto, cpu, cuda, …")
    add("--precision", help="auto, fp32, bf16 or fp16")
    add("--compile", action="store_true", help="run the model through torch.compile")
    add("--deterministic", action="store_true", help="ask torch for deterministic kernels")
    add("--seed", type=int, default=0, help="decides weights, order and augmentation (%(default)s)")
    add("--monitor", help="the logged value that decides what is best, e.g. val_accuracy")
    add("--tensorboard", action="store_true", help="write for TensorBoard too, into the run's directory")
    add("--resume", action="store_true", help="continue the run that --out holds")
    add("--dry-run", action="store_true", help="try everything out with two batches")
    add("--show-code", action="store_true", help="print the equivalent script and train nothing")
    train.set_defaults(command=_train)

"""``load``: a checkpoint file to a predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from cvkit.data.decode import MAX_PIXELS
from cvkit.errors import CheckpointError, CvkitError, UnknownNameError
from cvkit.inference.outputs import Task, gives_logits, is_classification, task_of_run
from cvkit.inference.predictor import Predictor
from cvkit.models import from_config
from cvkit.pixels import WHITE
from cvkit.training import load_checkpoint
from cvkit.training.runtime import Precision
from cvkit.training.snapshot import FORMAT, layers_of
from cvkit.transforms import Transform

__all__ = ["load"]

_REASONS = {
    "model": "was not made by cvkit.models.create",
    "classes": "are not known to its train loader",
    "transform": "is no preset of cvkit.transforms",
}
_BATCH_SIZE = 32


def load(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    classes: Sequence[str] | None = None,
    transform: Transform | Callable[[Image.Image], Tensor] | None = None,
    task: Task | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
) -> Predictor:
    """Makes a predictor from a checkpoint file alone, without the script that wrote it.

    The file tells the model, its classes, the preprocessing of the run's validation, how its files were decoded, its batch
    size, and what its outputs are. What it cannot tell (a model, data or transform of the user's own) is given here.

    Args:
        path: A file that a ``Checkpoint`` callback wrote.
        model: A model that takes the file's weights, in place of the one that the file describes.
        classes: Class names, in place of the file's.
        transform: The preprocessing, in place of the file's.
        task: What the outputs are, as in :class:`Predictor`, in place of what the run's loss, data and transform tell.
        device: ``"auto"`` or a device.
        precision: As in ``fit``.

    Returns:
        The predictor.

    Raises:
        CheckpointError: Missing, damaged, of a newer format, weights that do not fit, or of a run that cvkit cannot rebuild
            from the file (a model, data or transform of the user's own); it says what is missing.
        DeviceError: A device or precision that is not there.
    """
    content = load_checkpoint(path)
    known = _description(content, path)
    made = model if model is not None else _model(known, path)
    looks = transform if transform is not None else _transform(known, path)
    names = classes if classes is not None else known.get("classes")
    preset = looks.name if isinstance(looks, Transform) else None
    pictures = known.get("pictures")
    how: Mapping[str, Any] = pictures if isinstance(pictures, Mapping) else {}
    behind = how.get("background")
    found = task if task != "auto" else task_of_run(known.get("loss"), how.get("kind"), preset, names)
    if names is None and found == "auto" and is_classification(known.get("loss")):
        raise _missing("classes", path)
    _load_weights(made, content, path)
    if model is None:
        _check_layers(made, content, known, path)
    return Predictor(
        made,
        names,
        looks,
        task=found,
        outputs="logits" if gives_logits(known.get("loss")) else "probabilities",
        device=device,
        precision=precision,
        batch_size=how.get("batch_size") or _BATCH_SIZE,
        background=tuple(behind) if isinstance(behind, list | tuple) else WHITE,
        max_pixels=how.get("max_pixels") or MAX_PIXELS,
        whole=bool(how.get("whole")),
        # without a word of it: a run of an older version, or on another's data set, which took all levels for sRGB
        colour="convert" if how.get("colour") == "convert" else "ignore",
    )


def _description(content: Mapping[str, Any], path: str | Path) -> Mapping[str, Any]:
    """Returns what a checkpoint says of itself.

    Raises:
        CheckpointError: It is of a newer format, or no run's.
    """
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise CheckpointError(
            f"{path} is of a newer format",
            got=f"format {content['format']}, written by cvkit {content.get('cvkit')}",
            expected=f"format {FORMAT} or older",
            fix=f"use cvkit {content.get('cvkit')} or newer",
        )
    described = content.get("description")
    if not isinstance(content.get("model"), Mapping):
        raise CheckpointError(
            f"{path} holds no model",
            got=f"the keys {', '.join(sorted(map(str, content))) or '(none)'}",
            expected="a file that a Checkpoint callback wrote",
            fix="cvkit.load_checkpoint(path) gives its content",
        )
    return described if isinstance(described, Mapping) else {}


def _model(known: Mapping[str, Any], path: str | Path) -> nn.Module:
    config = known.get("model")
    if config is None:
        raise _missing("model", path)
    try:
        return from_config(config)
    except UnknownNameError as error:
        raise CheckpointError(
            f"{path} is of a model that is not known here",
            got=f"{config.get('name')!r}: {str(error).splitlines()[0]}",
            expected="a model of cvkit's or torchvision's, or one that is registered",
            fix="import the module that registers it before, or pass the model: cvkit.load(path, model=…)",
        ) from error


def _transform(known: Mapping[str, Any], path: str | Path) -> Transform:
    config = known.get("transform")
    if config is None:
        raise _missing("transform", path)
    try:
        return Transform.from_config(config)
    except CvkitError as error:
        raise CheckpointError(
            f"{path} is of a run with a transform that is not known here",
            got=f"{config.get('name')!r}: {str(error).splitlines()[0]}",
            expected="a preset of cvkit.transforms, or one that is registered",
            fix="import the module that registers it before, or pass the transform: cvkit.load(path, transform=…)",
        ) from error


def _missing(name: str, path: str | Path) -> CheckpointError:
    return CheckpointError(
        f"{path} does not describe its {name}",
        got=f"a run whose {name} {_REASONS[name]}",
        expected="a run of a model made by cvkit.models.create, on a cvkit loader with classes and a preset",
        fix=f"pass it: cvkit.load(path, {name}=…)",
    )


def _check_layers(model: nn.Module, content: Mapping[str, Any], known: Mapping[str, Any], path: str | Path) -> None:
    """Refuses a model that was changed after ``create``, by hand: its weights may fit, and its answers not.

    Raises:
        CheckpointError: Its layers are not those of the model that the run was made with.
    """
    then, now = known.get("layers"), layers_of(model)
    if not isinstance(then, Mapping) or then == now or content.get("torch") != str(torch.__version__):
        return  # another torch may describe a layer in other words
    other = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    raise CheckpointError(
        f"the model in {path} was changed after it had been created",
        got=f"{len(other)} other layers, e.g. {other[0]!r}: {then.get(other[0], 'none')}",
        expected=f"{now.get(other[0], 'none')}, as create({known['model'].get('name')!r}) makes it",
        fix="pass the model with the same change: cvkit.load(path, model=…)",
    )


def _load_weights(model: nn.Module, content: Mapping[str, Any], path: str | Path) -> None:
    try:
        model.load_state_dict(content["model"])
    except (RuntimeError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"the weights in {path} do not fit the model",
            got=said[:400],
            expected=f"the weights of this {type(model).__name__}",
            fix="pass the model that the run was made with: cvkit.load(path, model=…)",
        ) from error

"""What a checkpoint says of itself, looked at before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cvkit.data.colour_profiles import Colour
from cvkit.data.decode import MAX_PIXELS
from cvkit.errors import CheckpointError, CvkitError
from cvkit.models.registry import is_known
from cvkit.pixels import WHITE
from cvkit.plain_values import MOST, line, name_oddity, shown
from cvkit.training.snapshot import FORMAT, layers_of
from cvkit.transforms import Transform

__all__ = ["Description", "ImageReading"]

_REASONS = {
    "model": "was not made by cvkit.models.create",
    "classes": "are not known to its train loader",
    "transform": "is no preset of cvkit.transforms",
}
_BATCH_SIZE = 32
_MANY_CLASSES = 1_000  # fewer do no harm, whatever the model
_MOST_AT_A_TIME = 1 << 16  # images in a batch


@dataclass(frozen=True)
class ImageReading:
    """How a run read its images, as :class:`cvkit.Predictor` takes it.

    Attributes:
        kind: What stood beside each image, as ``ParallelDataset`` names it.
        batch_size: How many images go through the model at a time.
        background: What lies behind transparent pixels, levels from 0 to 255.
        max_pixels: The largest image that is decoded.
        whole: Whether a large JPEG is decoded in its full size.
        colour: What becomes of colour profiles; ``"ignore"`` for a run of an older version, which took all levels for sRGB.
    """

    kind: str | None
    batch_size: int
    background: tuple[int, int, int]
    max_pixels: int
    whole: bool
    colour: Colour


class Description:
    """What a checkpoint says of itself. Each part is checked when it is asked for: what the user passes need not be right.

    Args:
        content: What the file holds.
        path: The file, for messages.

    Raises:
        CheckpointError: It is of a newer format, or no run's.
    """

    def __init__(self, content: Mapping[str, Any], path: str | Path) -> None:
        self.path = path
        self._content = content
        self._check_format()
        weights = content.get("model")
        if not isinstance(weights, Mapping):
            keys = line(", ".join(sorted(key if isinstance(key, str) else shown(key) for key in content)))
            raise CheckpointError(
                f"{path} holds no model",
                got=f"the keys {keys or '(none)'}",
                expected="a file that a Checkpoint callback wrote",
                fix="cvkit.load_checkpoint(path) gives its content",
            )
        self.weights: Mapping[str, Any] = weights
        self._known = self._part(content, "description")

    def _check_format(self) -> None:
        number = self._content.get("format")
        if number is not None and (type(number) is not int or number < 1):
            raise self._malformed("format", number, f"an integer, {FORMAT} today")
        if number is not None and number > FORMAT:
            writer = self._content.get("cvkit")
            written = line(writer, 40) if isinstance(writer, str) else shown(writer)
            raise CheckpointError(
                f"{self.path} is of a newer format",
                got=f"format {shown(number)}, written by cvkit {written}",
                expected=f"format {FORMAT} or older",
                fix=f"use cvkit {written} or newer",
            )

    def _part(self, holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """Returns a dictionary with names as keys; an empty one where there is none."""
        part = holder.get(key)
        if part is None:
            return {}
        if not isinstance(part, Mapping) or not all(isinstance(one, str) for one in part):
            raise self._malformed(key, part, "a dictionary with names as keys")
        return part

    @property
    def loss(self) -> str | None:
        """The name of the run's loss."""
        return self._text(self._known, "loss")

    def _text(self, holder: Mapping[str, Any], key: str) -> str | None:
        text = holder.get(key)
        if text is not None and not isinstance(text, str):
            raise self._malformed(key, text, "a name")
        return text

    def model(self) -> Mapping[str, Any]:
        """Returns the configuration of the model, of a name that is known here.

        Raises:
            CheckpointError: There is none, or the model is not known.
        """
        config = self._part(self._known, "model")
        if not config:
            raise self.missing("model")
        name = config.get("name")
        if isinstance(name, str) and not is_known(name):
            raise CheckpointError(
                f"{self.path} is of a model that is not known here",
                got=f"{shown(name)}: unknown model {shown(name)}",
                expected="a model of cvkit's or torchvision's, or one that is registered",
                fix="import the module that registers it before, or pass the model: cvkit.load(path, model=…)",
            )
        return config

    def transform(self) -> Transform:
        """Returns the preprocessing.

        Raises:
            CheckpointError: There is none, it is not known here, or it cannot be used.
        """
        config = self._part(self._known, "transform")
        if not config:
            raise self.missing("transform")
        try:
            return Transform.from_config(config)
        # what was chosen to do harm makes a builder raise whatever it stumbles over
        except Exception as error:
            said = str(error) if isinstance(error, CvkitError) else f"{type(error).__name__}: {error}"
            raise CheckpointError(
                f"{self.path} is of a run with a transform that is not known here",
                got=f"{shown(config.get('name'))}: {line((said.splitlines() or [''])[0])}",
                expected="a preset of cvkit.transforms, or one that is registered",
                fix="import the module that registers it before, or pass the transform: cvkit.load(path, transform=…)",
            ) from error

    def classes(self) -> list[str] | None:
        """Returns the class names, or ``None``.

        Raises:
            CheckpointError: They are no list of names, each of them once, that a terminal can show.
        """
        names = self._known.get("classes")
        if names is None:
            return None
        expected = "a list of names without control characters, each of them once, at most one for each output"
        if not isinstance(names, list | tuple):
            raise self._malformed("classes", names, expected)
        if len(names) > _MANY_CLASSES and len(names) > (widest := self._widest()):
            raise self._malformed(
                "classes", f"{len(names)} names, and no weight with more than {widest} rows", expected
            )
        seen: set[str] = set()
        for name in names:
            why = name_oddity(name) if isinstance(name, str) else f"{shown(name)}, a {type(name).__name__}"
            if why is None and name in seen:
                why = f"{shown(name)} twice"
            if why is not None:
                raise self._malformed("classes", why, expected)
            seen.add(name)
        return list(names)

    def _widest(self) -> int:
        """Returns the largest side of any weight: no model has more outputs."""
        plain = (one for one in self.weights.values() if isinstance(one, Tensor) and not one.is_nested)
        return max((side for one in plain for side in one.shape), default=0)

    def reading(self) -> ImageReading:
        """Returns how the run read its images; for what an older file does not tell, the usual.

        Raises:
            CheckpointError: A value that no run can have had.
        """
        how = self._part(self._known, "images" if "images" in self._known else "pictures")  # as files of before call it
        behind, whole = how.get("background"), how.get("whole")
        if behind is not None and not (
            isinstance(behind, list | tuple)
            and len(behind) == 3
            and all(type(level) is int and 0 <= level <= 255 for level in behind)
        ):
            raise self._malformed("background", behind, "three levels from 0 to 255")
        if whole is not None and type(whole) is not bool:
            raise self._malformed("whole", whole, "True or False")
        colour = how.get("colour")
        if colour not in (None, "convert", "ignore"):
            raise self._malformed("colour", colour, '"convert" or "ignore"')
        return ImageReading(
            self._text(how, "kind"),
            self._count(how, "batch_size", _BATCH_SIZE, _MOST_AT_A_TIME),
            (behind[0], behind[1], behind[2]) if behind is not None else WHITE,
            self._count(how, "max_pixels", MAX_PIXELS, MOST),
            bool(whole),
            "convert" if colour == "convert" else "ignore",
        )

    def _count(self, holder: Mapping[str, Any], key: str, usual: int, most: int) -> int:
        number = holder.get(key)
        if number is None:
            return usual
        if type(number) is not int or not 1 <= number <= most:
            raise self._malformed(key, number, f"an integer from 1 to {most}")
        return number

    def check_layers(self, model: nn.Module) -> None:
        """Refuses a model that was changed after ``create``, by hand: its weights may fit, and its answers not.

        Raises:
            CheckpointError: Its layers are not those of the model that the run was made with.
        """
        then, now = self._part(self._known, "layers"), layers_of(model)
        if not then or self._content.get("torch") != str(torch.__version__):
            return  # another torch may describe a layer in other words
        other = [name for name in {**then, **now} if not _same(then.get(name), now.get(name))]
        if not other:
            return
        was = then.get(other[0], "none")
        raise CheckpointError(
            f"the model in {self.path} was changed after it had been created",
            got=f"{len(other)} other layers, e.g. {shown(other[0])}: {line(was) if isinstance(was, str) else shown(was)}",
            expected=f"{now.get(other[0], 'none')}, as create({shown(self.model().get('name'))}) makes it",
            fix="pass the model with the same change: cvkit.load(path, model=…)",
        )

    def missing(self, name: str) -> CheckpointError:
        """Builds the error for a part that the file does not describe: ``"model"``, ``"classes"`` or ``"transform"``."""
        return CheckpointError(
            f"{self.path} does not describe its {name}",
            got=f"a run whose {name} {_REASONS[name]}",
            expected="a run of a model made by cvkit.models.create, on a cvkit loader with classes and a preset",
            fix=f"pass it: cvkit.load(path, {name}=…)",
        )

    def _malformed(self, key: str, got: object, expected: str) -> CheckpointError:
        fix = "use another checkpoint of the run, and do not trust this one if it comes from elsewhere"
        return CheckpointError(
            f"{self.path} has a {key} that cannot be used",
            got=got if isinstance(got, str) and key == "classes" else shown(got),
            expected=expected,
            fix=f"pass it: cvkit.load(path, {key}=…); or {fix}" if key in _REASONS else fix,
        )


def _same(then: object, now: str | None) -> bool:
    return (then is None or isinstance(then, str)) and then == now

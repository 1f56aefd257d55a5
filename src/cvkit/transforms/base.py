"""What every preset is: two stages, described by plain values."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from cvkit.errors import ArgumentError, DataError
from cvkit.pixels import as_image
from cvkit.registry import presets
from cvkit.transforms import batch as ops
from cvkit.transforms import sample as one
from cvkit.transforms.configuration import check_options, configured
from cvkit.transforms.sample import Frame

__all__ = ["Framed", "Transform"]


@dataclass(frozen=True, repr=False)
class Transform(ABC):
    """Two stages from an image to the model's input.

    ``sample`` makes one image a uint8 tensor of a fixed size, in a worker; ``batch`` makes many of these the model's input,
    on the device, each with a random draw of its own. Presets build them; two are equal if their configurations are, and
    they travel to worker processes.

    To write one of your own, derive a frozen dataclass from this with ``name`` and ``sample``, add ``draw`` and ``apply`` if
    its batch stage is random, and file its builder in ``cvkit.registry.presets`` under that name.

    Attributes:
        name: The preset's name.
        sample_random: Whether ``sample`` draws random numbers, from torch's global generator. If not, what it returns may be
            kept and used again.
        takes_pairs: Whether a mask or an image as target goes through the same first stage (:meth:`sample_pair`).
        mixes: Whether ``apply`` mixes each sample of a batch with the one before it, the first with the last.
        size: Side of the result in pixels.
        mean: Mean of each channel, on the scale 0 to 1.
        std: Standard deviation of each channel, on the same scale.
    """

    name: ClassVar[str]
    sample_random: ClassVar[bool] = False
    takes_pairs: ClassVar[bool] = False
    mixes: ClassVar[bool] = False

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses a size and statistics that cannot be used."""
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(
                f"{self.name}: size cannot be used",
                got=repr(self.size),
                expected="the side of the result in pixels, an integer of 1 or more",
                fix="pass e.g. size=32",
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or not self._usable():
            raise ArgumentError(
                f"{self.name}: mean and std cannot be used",
                got=f"mean={self.mean}, std={self.std}",
                expected="one mean and one positive std a channel, for 1 (grey) or 3 (RGB) channels, on the scale 0 to 1",
                fix="leave both out for the usual ones",
            )

    def _usable(self) -> bool:
        return all(math.isfinite(m) for m in self.mean) and all(0 < s < math.inf for s in self.std)

    @property
    def channels(self) -> int:
        """Channels of the result: 1 (grey) or 3 (RGB)."""
        return len(self.mean)

    @abstractmethod
    def sample(self, image: Image.Image) -> Tensor:
        """Takes one image through the first stage.

        Args:
            image: An image of any size and mode.

        Returns:
            uint8 ``(C, size, size)``.

        Raises:
            ImageError: A mode that has no right answer as an 8-bit image.
        """

    def sample_pair(self, image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
        """Takes an image and the mask or image that is its target through the first stage, both in the same way.

        Returns:
            uint8 ``(C, size, size)``, and the target as a tensor.

        Raises:
            DataError: This preset moves no target with its image.
        """
        raise self._no_pairs(target)

    def _no_pairs(self, target: Image.Image) -> DataError:
        return DataError(
            f"{self.name} leaves a target that is an image behind",
            got=f"a target of mode {target.mode!r}, {target.width}×{target.height}",
            expected="targets that are classes or numbers",
            fix="take segmentation_train and segmentation_eval for masks, denoise for images",
        )

    def passes(self, channels: int, height: int, width: int) -> bool:
        """Whether the first stage returns the pixels of every image of this kind as they are."""
        return False

    def batch(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Takes a batch through the second stage.

        Args:
            images: uint8 ``(B, C, size, size)`` on any device, as ``sample`` returned them.
            targets: What the model is to say of them, ``(B, …)``.
            generator: A CPU generator; the draws come from it and are the same on every device.

        Returns:
            float32 ``(B, C, size, size)`` on the device of ``images``, and the targets.

        Raises:
            ArgumentError: Not what ``sample`` returns.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != (self.channels, self.size, self.size):
            raise ArgumentError(
                f"{self.name}: these are not batches of its samples",
                got=f"{images.dtype} of shape {tuple(images.shape)}",
                expected=f"torch.uint8 of shape (B, {self.channels}, {self.size}, {self.size})",
                fix="stack what its sample() returns",
            )
        return self.apply(images, targets, self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws the random numbers of a batch of ``count`` samples; each value is ``(count, …)``, on the CPU.

        They stand apart from :meth:`apply` so that several processes can draw for one batch and take their own rows.
        """
        return {}

    def apply(self, images: Tensor, targets: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Does what :meth:`batch` does, with draws that are given."""
        return ops.normalize(images, self.mean, self.std), targets

    def evaluation(self) -> Transform:
        """Returns the deterministic twin, which validation and prediction use; itself where nothing is random."""
        return self

    def denormalize(self, images: Tensor) -> Tensor:
        """Undoes the normalisation, for looking at images.

        Args:
            images: float ``(…, C, H, W)``, as ``batch`` returned them.

        Returns:
            float32 ``(…, C, H, W)`` from 0 to 1.
        """
        return ops.denormalize(images, self.mean, self.std)

    def __call__(self, image: Any) -> Tensor:
        """Takes one image through both stages; what is random draws from torch's global generator.

        Args:
            image: An image of any size and mode; presets also take a uint8 array ``(H, W)`` or ``(H, W, 3)`` (RGB), or a uint8
                tensor ``(C, H, W)``.

        Returns:
            float32 ``(C, size, size)``.
        """
        images, _ = self.batch(self.sample(image)[None], torch.zeros(1, dtype=torch.long), torch.default_generator)
        return images[0]

    def to_config(self) -> dict[str, Any]:
        """Returns the preset's name and arguments as plain types, for :meth:`from_config`."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return {
            "name": self.name,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in values.items()},
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Transform:
        """Builds a transform from what :meth:`to_config` returned.

        The configuration may come from a file that is not trusted: values of other types than the preset's own, and sizes that
        no image has, are refused before the preset is built.

        Raises:
            UnknownNameError: A preset that is not known, e.g. one registered by a script that has not been imported.
            ArgumentError: Arguments that the preset does not take.
        """
        name, options = configured(config)
        builder = presets.get(name)
        accepted = inspect.signature(builder)
        check_options(name, options, accepted)
        try:
            accepted.bind(**options)
        except TypeError as error:
            raise ArgumentError(
                f"this is no configuration of the preset {name!r}",
                got=f"{options} ({error})",
                expected=f"arguments among {', '.join(accepted.parameters)}",
                fix="pass what to_config() returned",
            ) from error
        built: Transform = builder(**options)
        return built

    def __repr__(self) -> str:
        values = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.init)
        return f"{self.name}({values})"


class Framed(Transform):
    """A transform whose first stage cuts a :class:`~cvkit.transforms.sample.Frame` out of each image.

    The frame is chosen from the image's size alone: so that a loader can decode a large JPEG no larger than is needed, and
    cut fresh frames out of images that it keeps in memory, in several threads at a time. Derive a frozen dataclass with
    ``name`` and ``frame``, and set ``sample_random`` if that draws.
    """

    filter: ClassVar[str] = "bilinear"

    @property
    def by_frame(self) -> bool:
        """Whether ``frame`` and ``cut`` are the whole first stage; a class with a ``sample`` of its own is taken at that."""
        return type(self).sample is Framed.sample

    draws_global: ClassVar[bool] = False
    """Whether the first stage also draws from torch's global generator, so that no two of it may run at a time."""

    @abstractmethod
    def frame(self, width: int, height: int, generator: torch.Generator | None = None) -> Frame:
        """Chooses what is taken of an image.

        Args:
            width: The image's width in pixels.
            height: The image's height in pixels.
            generator: Where random numbers come from; torch's global generator by default.
        """

    def cut(self, image: Image.Image | Tensor, frame: Frame) -> Tensor:
        """Cuts a frame out of an image, or out of its pixels ``(C, H, W)`` as :meth:`pixels` returned them.

        Returns:
            uint8 ``(C, size, size)``.

        Raises:
            ImageError: A mode that has no right answer as an 8-bit image.
        """
        source = image if isinstance(image, Tensor) else one.to_channels(image, self.channels)
        return one.cut(source, frame, self.filter)

    def cut_target(self, target: Image.Image, frame: Frame) -> Tensor:
        """Cuts out of a target that is a mask or an image what belongs to a frame; see :meth:`sample_pair`.

        Raises:
            DataError: This preset moves no target with its image.
        """
        raise self._no_pairs(target)

    def pixels(self, image: Image.Image) -> Tensor:
        """Returns an image to be kept in memory, no larger than a later :meth:`cut` can use.

        Returns:
            uint8 ``(C, H, W)``.

        Raises:
            ImageError: A mode that has no right answer as an 8-bit image.
        """
        image = as_image(image)
        pixels = one.to_tensor(one.to_channels(image, self.channels))
        return one.resize(pixels, *self.most(*image.size), self.filter)

    def most(self, width: int, height: int) -> tuple[int, int]:
        """Returns the width and height beyond which an image of this size is of no use."""
        return width, height

    def sample(self, image: Image.Image) -> Tensor:
        """Chooses a frame and cuts it out."""
        image = as_image(image)
        return self.cut(image, self.frame(*image.size))

    def sample_pair(self, image: Image.Image, target: Image.Image) -> tuple[Tensor, Tensor]:
        """Takes an image and the mask or image that is its target through the first stage, both by the same frame."""
        image = as_image(image)
        frame = self.frame(*image.size)
        return self.cut(image, frame), self.cut_target(target, frame)

    def passes(self, channels: int, height: int, width: int) -> bool:
        """Whether the frame is the whole image as it is, in a class that does no more than cut it out."""
        own = type(self).cut is not Framed.cut or type(self).sample is not Framed.sample
        return not own and self.keeps(channels, height, width)

    def keeps(self, channels: int, height: int, width: int) -> bool:
        """Whether the frame is always the whole of an image of this kind, in its own size and channels."""
        if self.sample_random or self.draws_global or channels != self.channels or not height == width == self.size:
            return False
        return self.frame(width, height) == one.whole_frame(width, height, self.size)

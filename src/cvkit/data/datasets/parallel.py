"""``ParallelDataset``: images in one directory, their labels in another, matched by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from cvkit.data.colour_profiles import Colour
from cvkit.data.datasets.base import class_names, fingerprint_of
from cvkit.data.datasets.files import EXTENSIONS, Background, FileDataset, OnError, Tree, some, stem_of
from cvkit.data.datasets.labels import number
from cvkit.data.datasets.multilabel import check_separator, listed, multi_hot
from cvkit.data.datasets.similar_names import warn_alike
from cvkit.data.datasets.text_files import check_encoding, read_text
from cvkit.data.decode import FEW_BITS, MAX_PIXELS, Enough, decode, opened
from cvkit.data.index import PathIndex
from cvkit.data.truncation import loaded
from cvkit.errors import ArgumentError, DataError, ImageError, unknown_name
from cvkit.pixels import WHITE

__all__ = ["ParallelDataset"]

_KINDS = ("text", "multilabel", "mask", "image")
_TEXTS = ("text", "multilabel")
_LEVELS = 65536  # as many values as 16 bits have


class ParallelDataset(FileDataset):
    """Images in one directory and their labels in another, matched by their path without its ending.

    ``images/a/7.jpg`` belongs to ``labels/a/7.txt`` (or ``.png``). Files and links count as in :class:`FolderDataset`; the
    order is that of the images' sorted paths. A target is, by ``kind``:

    * ``"text"``: the class that the file names, as its place in ``classes``;
    * ``"multilabel"``: the classes that the file names, one a line, as float32 ``(classes,)`` of 0 and 1, for ``loss="bce"``;
      an empty file is an image of no class;
    * ``"mask"``: an image of integers, mode ``"L"`` (or ``"I"`` beyond 255), as large as the image: a class a pixel.
      Palette masks give their indices, and no level is scaled or blended;
    * ``"image"``: an image in RGB, e.g. what a network is to restore. It may be of another size.

    Args:
        images: The directory of the images.
        labels: The directory of the labels.
        kind: What the labels are.
        classes: The class names in their order. For text by default those found, sorted; for masks by default the numbers
            from 0 to the largest found, for which every mask is read once when ``classes`` is first asked for.
        mask_values: For masks: the values in the files that stand for class 0, 1, …, e.g. ``(0, 255)``. By default values are
            the classes themselves.
        ignore: For masks: a value that stays as it is and is no class, e.g. 255 for an unlabelled border, to be given to the
            loss: ``nn.CrossEntropyLoss(ignore_index=255)``.
        separator: For ``"multilabel"``: what stands between two labels of a line; by default each line is one.
        encoding: What text files are in, e.g. ``"gbk"``; by default UTF-8, or what their byte order mark says.
        suffix: What label names have beyond those of the images, e.g. ``"_mask"`` for ``7_mask.png``.
        on_error: As in :class:`FolderDataset`.
        extensions: As in :class:`FolderDataset`, for images and for labels that are images.
        background: As in :class:`FolderDataset`.
        max_pixels: As in :class:`FolderDataset`.
        colour: As in :class:`FolderDataset`, of images; masks are numbers, and are not converted.
        follow_links: As in :class:`FolderDataset`.

    Attributes:
        root: The directory of the images.
        label_root: The directory of the labels.
        classes: The class names; ``None`` for ``kind="image"``.
        targets: The target of each sample for text, else the path of each label.
        paths: The path of each image, relative to ``root``.
        label_paths: The path of each label, relative to ``label_root``.
        fingerprint: A hash of kind, classes, paths and targets.

    Raises:
        DataError: A missing directory, no images, an image without a label or a label without an image, two of one
            name, an empty text, or a class that ``classes`` lacks; an image that links list with two classes; a pipe, socket
            or device. When a sample is read: a mask of another size than its
            image, or with a value that is no class.
        ArgumentError: A value that cannot be used.

    Warns:
        CvkitWarning: Links that are not followed, or that list an image twice; class names that are nearly the same.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        kind: Literal["text", "multilabel", "mask", "image"] = "text",
        *,
        classes: Sequence[str] | None = None,
        mask_values: Sequence[int] | None = None,
        ignore: int | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        suffix: str = "",
        on_error: OnError = "raise",
        extensions: Sequence[str] = EXTENSIONS,
        background: Background = WHITE,
        max_pixels: int = MAX_PIXELS,
        colour: Colour = "convert",
        follow_links: bool = False,
    ) -> None:
        if kind not in _KINDS:
            raise unknown_name("kind", kind, _KINDS)
        _check_mask_options(kind, classes, mask_values, ignore)
        check_separator(separator, kind=kind)
        check_encoding(encoding)
        sources = Tree(images, extensions, follow_links=follow_links, what="a directory of images")
        answers = Tree(
            labels, (".txt",) if kind in _TEXTS else extensions, follow_links=follow_links, what="a directory of labels"
        )
        pairs = _matched(sources, answers, suffix)
        sources.warn()
        answers.warn()
        super().__init__(
            images,
            [one for one, _ in pairs],
            on_error=on_error,
            background=background,
            max_pixels=max_pixels,
            colour=colour,
        )
        self.kind = kind
        self.label_root = Path(labels)
        self.label_paths = PathIndex([other for _, other in pairs])
        self.mask_values = tuple(int(value) for value in mask_values) if mask_values is not None else None
        self.ignore = ignore
        given = class_names(classes) if classes is not None else None
        self._given = given if given is not None or mask_values is None else [str(int(value)) for value in mask_values]
        self._numbers: np.ndarray[Any, Any] | None = None
        targets: Sequence[Any] = [None] * len(pairs)
        if kind in _TEXTS:
            self._given, self._numbers = self._of_texts(given, separator, encoding)
            targets = self._numbers.tolist()
            if given is None:
                warn_alike(answers.root, self._given)
        sources.check_repeats(self.paths, targets, self._given)

    def _of_texts(
        self, given: list[str] | None, separator: str | None, encoding: str | None
    ) -> tuple[list[str], np.ndarray[Any, Any]]:
        """Returns the class names, and the number of each sample's class, or one 0 or 1 a class."""
        files = [self.label_root / path for path in self.label_paths]
        texts, sources = [_text(file, encoding) for file in files], [str(file) for file in files]
        if self.kind == "multilabel":
            lists = [listed(text, separator, f"the label {file}") for text, file in zip(texts, files, strict=True)]
            return multi_hot(lists, given, sources)
        names, targets = number([_one(text, file) for text, file in zip(texts, files, strict=True)], given, sources)
        return names, np.asarray(targets, dtype=np.int64)

    @cached_property
    def classes(self) -> list[str] | None:  # type: ignore[override]  # made when first asked for, else the same
        """The class names; ``None`` for ``kind="image"``.

        Raises:
            DataError: A mask that cannot be read, where the classes are to be found in the masks.
        """
        if self._given is not None or self.kind == "image":
            return self._given
        highest = 0
        for index in range(len(self)):
            values = np.unique(np.asarray(self._mask(index)))
            highest = max(highest, *(int(value) for value in values if value != self.ignore), 0)
        if self.ignore is not None and self.ignore < highest:
            raise DataError(
                "ignore is the number of a class",
                got=f"ignore={self.ignore}, and masks with values up to {highest}",
                expected="a value beyond the classes' numbers",
                fix="name the classes' values, so that they are numbered without it: mask_values=(0, 1, …)",
            )
        return [str(value) for value in range(highest + 1)]

    @property
    def known_classes(self) -> list[str] | None:
        """The class names as far as they are known without reading a mask."""
        return self._given

    @cached_property
    def targets(self) -> list[Any]:
        """The target of each sample for text, else the path of each label."""
        if self._numbers is not None:
            targets: list[Any] = self._numbers.tolist()
            return targets
        return [Path(path) for path in self.label_paths]

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """A hash of kind, classes, paths and targets."""
        numbers = self._numbers if self._numbers is not None else ()
        values = (self.kind, self._given, self.mask_values, self.ignore)
        return fingerprint_of(*values, list(self.paths), list(self.label_paths), numbers)

    def read(self, index: int, enough: Enough | None = None) -> tuple[Image.Image, Any]:
        """Returns a sample; an image with a mask or an image beside it comes in its full size."""
        return super().read(index, enough if self.kind in _TEXTS else None)

    def target(self, index: int, image: Image.Image) -> Any:
        """Returns the class number, the mask or the image that belongs to an image.

        Raises:
            DataError: The mask has another size, or a value that is no class.
            ImageError: A label that is an image cannot be decoded.
        """
        if self._numbers is not None:
            one = self._numbers[index]
            return torch.tensor(one) if self.kind == "multilabel" else int(one)
        path = self.label_root / self.label_paths[index]
        if self.kind == "image":
            return decode(path, background=self.background, max_pixels=self.max_pixels, colour=self.colour)
        mask = self._mask(index)
        if mask.size != image.size:
            raise DataError(
                f"the mask {path} is not as large as its image {self.root / self.paths[index]}",
                got=f"mask {mask.width}×{mask.height}, image {image.width}×{image.height}",
                expected="the same size",
                fix="see whether one was resized or turned without the other (images are turned upright by their EXIF tag)",
            )
        return mask

    def files(self, index: int) -> list[Path]:
        """Returns the files that a sample's pixels come from: its image, and the mask or image beside it."""
        return super().files(index) + ([self.label_root / self.label_paths[index]] if self.kind not in _TEXTS else [])

    def _mask(self, index: int) -> Image.Image:
        """Returns a mask with its class numbers.

        Raises:
            ImageError: It cannot be decoded, or holds no integers.
            DataError: A value that is no class.
        """
        path = self.label_root / self.label_paths[index]
        exact = self._given is None
        values = np.asarray(opened(path, _integers(path, exact=exact), max_pixels=self.max_pixels))
        if not 0 <= int(values.min(initial=0)) <= int(values.max(initial=0)) < _LEVELS:
            raise DataError(
                f"the mask {path} holds values that are no class numbers",
                got=f"values from {values.min()} to {values.max()}",
                expected=f"integers from 0 to {_LEVELS - 1:,}",
                fix="save it with the classes' numbers, e.g. 255 where there is none, and pass ignore=255",
            )
        if self.mask_values is not None:
            values = self._mapped(values)
        self._check_values(values, path)
        return Image.fromarray(values.astype(np.uint8 if values.max(initial=0) <= 255 else np.int32))

    def _mapped(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Maps the files' values to classes; what is none becomes a number that is no class either."""
        table = np.full(_LEVELS, -1, dtype=np.int32)
        table[list(self.mask_values or ())] = range(len(self.mask_values or ()))
        if self.ignore is not None:
            table[self.ignore] = self.ignore
        return np.where(table[values] >= 0, table[values], -1 - values.astype(np.int32))

    def _check_values(self, values: np.ndarray[Any, Any], path: Path) -> None:
        if self._given is None:
            return
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low >= 0 and high < len(self._given):
            return
        wrong = [int(v) for v in np.unique(values) if not 0 <= v < len(self._given) and v != self.ignore]
        if not wrong:
            return
        found = [-1 - value if self.mask_values is not None and value < 0 else value for value in wrong]
        allowed = self.mask_values if self.mask_values is not None else range(len(self._given))
        raise DataError(
            f"the mask {path} holds values that are no class: {some([str(value) for value in sorted(found)])}",
            got=f"{len(found)} such values",
            expected=f"only {some([str(value) for value in allowed])}, for the classes {some(self._given)}",
            fix="name what the values stand for: mask_values=(0, 255), or ignore=255; a mask saved as JPEG is lost: use PNG",
        )


def _check_mask_options(
    kind: str, classes: Sequence[str] | None, mask_values: Sequence[int] | None, ignore: int | None
) -> None:
    if kind != "mask" and (mask_values is not None or ignore is not None):
        raise ArgumentError(
            "mask_values and ignore are for masks", got=f"kind={kind!r}", expected='kind="mask"', fix="leave them out"
        )
    if kind == "image" and classes is not None:
        raise ArgumentError("images have no classes", got='kind="image"', expected="no classes", fix="leave them out")
    if mask_values is not None and not isinstance(mask_values, Iterable):
        raise ArgumentError(
            "mask_values cannot be used", got=repr(mask_values), expected="one a class", fix="e.g. mask_values=(0, 255)"
        )
    _check_ignore(ignore, mask_values if mask_values is not None else classes)
    if mask_values is None:
        return
    values = list(mask_values)
    whole = all(
        isinstance(one, int | np.integer) and not isinstance(one, bool) and 0 <= one < _LEVELS for one in values
    )
    if not values or not whole or len(set(values)) != len(values) or ignore in values:
        raise ArgumentError(
            "mask_values cannot be used",
            got=f"{mask_values!r}, ignore={ignore}",
            expected="integers from 0 to 65,535, each of them once, without the ignored one",
            fix="e.g. mask_values=(0, 255) for a black and white mask",
        )
    if classes is not None and len(list(classes)) != len(values):
        raise ArgumentError(
            "classes and mask_values do not belong together",
            got=f"{len(list(classes))} classes, {len(values)} values",
            expected="one value a class",
            fix="name a class for each value",
        )


def _check_ignore(ignore: int | None, names: Sequence[Any] | None) -> None:
    if ignore is not None and (type(ignore) is not int or not 0 <= ignore < _LEVELS):
        raise ArgumentError(
            "ignore cannot be used",
            got=repr(ignore),
            expected=f"an integer from 0 to {_LEVELS - 1:,} that the masks hold",
            fix="save the masks with 255 there, and pass ignore=255 here and ignore_index=255 to the loss",
        )
    count = len(list(names)) if names is not None else 0
    if ignore is not None and ignore < count:
        raise ArgumentError(
            "ignore is the number of a class",
            got=f"ignore={ignore}, {count} classes",
            expected="a value beyond the classes' numbers",
            fix="save the masks with another value there, e.g. 255",
        )


def _matched(sources: Tree, labels: Tree, suffix: str) -> list[tuple[str, str]]:
    """Returns pairs of image and label, in the order of the images."""
    images, answers = _by_stem(sources, ""), _by_stem(labels, suffix)
    without = [images[stem] for stem in images if stem not in answers]
    orphans = [answers[stem] for stem in answers if stem not in images]
    if without or orphans:
        parts = [f"{len(without)} images without a label: {some(without)}"] if without else []
        parts += [f"{len(orphans)} labels without an image: {some(orphans)}"] if orphans else []
        links = len(sources.links) + len(labels.links)
        parts += [f"{links} links, which are not followed without follow_links=True"] if links else []
        raise DataError(
            f"{sources.root} and {labels.root} do not match",
            got="; ".join(parts),
            expected=f"for each image one label of its name{suffix and f' and {suffix!r}'}, "
            f"ending in {', '.join(labels.endings)}",
            fix="add what is missing or move the rest away; names such as 7_mask.png are matched by suffix='_mask'",
        )
    if not images:
        raise DataError(
            f"no image in {sources.root}",
            got=sources.holds(),
            expected=f"files ending in {', '.join(sources.endings)}",
            fix="check the path, or name other endings: extensions=(…)",
        )
    return [(path, answers[stem]) for stem, path in images.items()]


def _by_stem(tree: Tree, suffix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in tree.files():
        stem = stem_of(path)
        stem = stem.removesuffix(suffix) if stem.endswith(suffix) else path
        if stem in found:
            raise DataError(
                f"{tree.root} holds two files of one name: {found[stem]} and {path}",
                got=f"both are matched as {stem!r}",
                expected="names that differ before their ending",
                fix="rename or remove one of them",
            )
        found[stem] = path
    return found


def _text(path: Path, encoding: str | None) -> str:
    holds = f"a text file ({encoding or 'UTF-8'}) that holds the name of a class"
    return read_text(path, encoding, what="the label", holds=holds, fix="check its permissions").strip()


def _one(label: str, path: Path) -> str:
    """Returns the one class that a file names."""
    if not label or "\n" in label:
        raise DataError(
            f"the label {path} is no class name",
            got="an empty file" if not label else f"{len(label.splitlines())} lines",
            expected="one line that holds the name of a class",
            fix="write the class into it",
        )
    return label


def _integers(path: Path, *, exact: bool) -> Any:
    """Returns what makes integers of a mask's image; ``exact`` if nothing will tell which of them are right."""

    def take(image: Image.Image) -> Image.Image:
        if exact and image.format in ("JPEG", "MPO"):
            raise ImageError(
                f"the mask {path} is a JPEG, which does not keep its values",
                got=f"{image.width}×{image.height} pixels",
                expected="a mask as it was drawn, e.g. a PNG",
                fix="save the masks as PNG, or name the values they should hold: mask_values=(0, 255)",
            )
        largest, scaled_to = _scale(image)
        loaded(image)
        ImageOps.exif_transpose(image, in_place=True)  # as the image is
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise ImageError(
                f"the mask {path} holds colours or transparency, not class numbers",
                got=f"mode {image.mode!r}",
                expected="one integer a pixel (mode 1, L, P or 16-bit grey)",
                fix="map each colour to its class number, and save that as a grey or palette PNG",
            )
        if image.mode == "1" or largest != scaled_to:
            values = np.asarray(image).astype(np.int64)
            return Image.fromarray(((values * largest + scaled_to // 2) // scaled_to).astype(np.int32))
        return image

    return take


def _scale(image: Image.Image) -> tuple[int, int]:
    """Returns a file's largest level and the one that Pillow makes of it; as a rule they are the same.

    Pillow spreads grey of 2 and 4 bits, and PGM of another maximum, over 8 or 16 bits. The levels of a mask are numbers.
    """
    for tile in getattr(image, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if arguments and arguments[0] in FEW_BITS and image.mode == "L":
            return FEW_BITS[str(arguments[0])], 255
        if image.format == "PPM" and tile.codec_name in ("ppm", "ppm_plain") and image.mode in ("L", "I"):
            return int(arguments[-1]), 255 if image.mode == "L" else 65535
    return 1, 1

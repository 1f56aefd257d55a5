"""``FolderDataset``: the folder is the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvkit.data.colour_profiles import Colour
from cvkit.data.datasets.base import class_names, fingerprint_of
from cvkit.data.datasets.files import EXTENSIONS, Background, ClassTargets, FileDataset, OnError, Tree
from cvkit.data.datasets.similar_names import hint, warn_alike
from cvkit.data.decode import MAX_PIXELS
from cvkit.errors import DataError
from cvkit.pixels import WHITE

__all__ = ["FolderDataset"]


class FolderDataset(ClassTargets, FileDataset):
    """Images in ``root/<class>/**``.

    Hidden files and folders, and files that are no images by their ending, do not count. Nor do symbolic links to folders
    and to files outside ``root``, of which a warning tells. The order is that of the sorted class names, and within a class
    of the sorted paths.

    Args:
        root: The directory.
        classes: The class names in their order. By default the names of the folders, sorted; a validation set is made with
            ``classes=train.classes``, so that both number them alike.
        on_error: ``"raise"`` names a file that cannot be decoded; ``"skip"`` lets the loader leave it out and count it.
        extensions: File name endings that count as images, in any case.
        background: What lies behind transparent pixels.
        max_pixels: The largest image that is decoded, in pixels.
        colour: What becomes of an image whose file says that its colours are not sRGB: ``"convert"`` or ``"ignore"``, as in
            :func:`decode`.
        follow_links: Whether symbolic links are followed, wherever they lead.

    Attributes:
        root: The directory.
        classes: The class names; the target is the place in this list.
        targets: The target of each sample.
        paths: The path of each sample, relative to ``root``.
        fingerprint: A hash of classes, paths and targets.

    Raises:
        DataError: A missing directory, no class folders, a class without images, a folder that ``classes`` lacks, or one
            that cannot be read; an image that links list in two classes; a pipe, socket or device.
        ArgumentError: A value that cannot be used.

    Warns:
        CvkitWarning: Links that are not followed, or that list an image twice in its class; class names that are nearly the
            same.
    """

    classes: list[str]

    def __init__(
        self,
        root: str | Path,
        *,
        classes: Sequence[str] | None = None,
        on_error: OnError = "raise",
        extensions: Sequence[str] = EXTENSIONS,
        background: Background = WHITE,
        max_pixels: int = MAX_PIXELS,
        colour: Colour = "convert",
        follow_links: bool = False,
    ) -> None:
        tree = Tree(root, extensions, follow_links=follow_links, what="a directory with one folder a class")
        found = _class_folders(tree)
        self.classes = class_names(classes) if classes is not None else found
        _check_known(tree, found, self.classes)
        paths: list[str] = []
        targets: list[int] = []
        for target, name in enumerate(self.classes):
            inside = tree.files(name) if name in found else []
            if not inside and classes is None:
                raise DataError(
                    f"the class folder {tree.root / name} holds no image",
                    got=tree.holds(name),
                    expected=f"files ending in {', '.join(tree.endings)}",
                    fix="add images, or delete the folder",
                )
            paths += inside
            targets += [target] * len(inside)
        if not paths:
            raise DataError(
                f"no image of any class in {tree.root}",
                got=tree.holds(),
                expected=f"files ending in {', '.join(tree.endings)}",
                fix="add images, or name other endings: extensions=(…)",
            )
        tree.warn()
        tree.check_repeats(paths, targets, self.classes)
        if classes is None:
            warn_alike(tree.root, self.classes)
        super().__init__(root, paths, on_error=on_error, background=background, max_pixels=max_pixels, colour=colour)
        self.numbers = np.asarray(targets, dtype=np.int64)
        self.fingerprint = fingerprint_of(self.classes, targets, paths)


def _class_folders(tree: Tree) -> list[str]:
    folders = tree.folders()
    if not folders:
        raise DataError(
            f"{tree.root} holds no class folder",
            got=tree.holds(),
            expected=f"{tree.root}/<class>/<image>",
            fix="put the images of each class into a folder of its name",
        )
    return folders


def _check_known(tree: Tree, found: Sequence[str], classes: Sequence[str]) -> None:
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise DataError(
            f"{tree.root} holds folders that are no known class: {', '.join(unknown)}",
            got=f"folders {', '.join(found)}",
            expected=f"only {', '.join(classes)}",
            fix=f"rename{hint(unknown, classes)} or remove the folder, or add its images to the training set as well",
        )

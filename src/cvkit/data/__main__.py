"""``python -m cvkit.data DIR``: what is in a directory of images, and what is wrong with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cvkit.data.datasets.folder import FolderDataset
from cvkit.data.reporting.report import report
from cvkit.errors import CvkitError

__all__ = ["main"]

_VAL = ("val", "valid", "validation", "test")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report on a directory.

    Args:
        arguments: As on the command line; by default those of the process.

    Returns:
        0 where no error was found, 1 where one was, 2 where the directory is none of classes.
    """
    asked = _parser().parse_args(arguments)
    try:
        root = Path(asked.directory)
        train, val = _folders(root, asked.val)
        dataset = FolderDataset(train)
        held = FolderDataset(val, classes=dataset.classes) if val is not None else None
        found = report(dataset, held, near_duplicates=not asked.no_near)
        print(str(found).encode("utf-8", "backslashreplace").decode())
        if asked.html is not None:
            found.to_html(asked.html)
        if asked.csv is not None:
            found.to_csv(asked.csv)
        if asked.manifest:
            for one in (dataset, held) if held is not None else (dataset,):
                print(f"manifest of {one.root}: {one.manifest()}")
    except CvkitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if found else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cvkit.data",
        description="Looks at every image of a directory, and reports counts, suspicious files, duplicates and leaks.",
    )
    parser.add_argument("directory", help="DIR/train/<class>/… and DIR/val/<class>/…, or DIR/<class>/…")
    parser.add_argument("--val", help="name of the validation folder; by default val, valid, validation or test")
    parser.add_argument("--html", metavar="FILE", help="write a page with thumbnails")
    parser.add_argument("--csv", metavar="FILE", help="write the findings as a table")
    parser.add_argument("--no-near", action="store_true", help="do not look for images that look alike")
    parser.add_argument("--manifest", action="store_true", help="write the manifest beside the data")
    return parser


def _folders(root: Path, val: str | None) -> tuple[Path, Path | None]:
    """Returns the folders of training and validation."""
    if not (root / "train").is_dir() and val is None:
        return root, None
    held = [root / name for name in ((val,) if val is not None else _VAL) if val is not None or (root / name).is_dir()]
    return root / "train", held[0] if held else None


if __name__ == "__main__":
    sys.exit(main())

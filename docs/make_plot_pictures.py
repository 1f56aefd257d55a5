"""Draws the images of plots.rst anew: ``python docs/make_plot_pictures.py``.

It runs the page's own blocks in an empty directory and keeps what they save, so that an image can never be of another program.
"""

import contextlib
import re
import shutil
import tempfile
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

DOCS = Path(__file__).parent
IMAGES = DOCS / "_static" / "plots"
MOST = 100_000
"""Bytes that an image may have."""

BLOCK = re.compile(r"^\.\. code-block:: python\n\n((?:(?: {3}.*)?\n)+)", re.MULTILINE)


def main():
    IMAGES.mkdir(parents=True, exist_ok=True)
    plain = Figure.savefig
    Figure.savefig = lambda self, path, **options: plain(self, path, **{"dpi": 70, **options})
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        names = {"__name__": "__main__"}
        for block in BLOCK.findall((DOCS / "plots.rst").read_text("utf-8")):
            exec(compile(textwrap.dedent(block), "plots.rst", "exec"), names)
        for path in sorted(Path().glob("*.png")):
            size = path.stat().st_size
            if size > MOST:
                raise SystemExit(f"{path} has {size:,} bytes, more than {MOST:,}")
            shutil.copy(path, IMAGES / path.name)
            print(f"{path}: {size:,} bytes")


if __name__ == "__main__":
    main()

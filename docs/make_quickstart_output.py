"""Records what the program of quickstart.rst prints, as a reader would run it: ``python docs/make_quickstart_output.py``.

The result is docs/recorded/quickstart.txt, which the page shows; a test runs the program again and compares what it learns.
"""

import contextlib
import re
import tempfile
import textwrap
from pathlib import Path

DOCS = Path(__file__).parent
FOUND = re.compile(r"^\.\. code-block:: python\n\n((?:(?: {3}.*)?\n)+)", re.MULTILINE)


def main():
    blocks = [textwrap.dedent(one) for one in FOUND.findall((DOCS / "quickstart.rst").read_text("utf-8"))][:4]
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        names = {"__name__": "__main__"}
        for block in blocks:
            exec(compile(block, "quickstart.rst", "exec"), names)
        history, prediction = names["result"].history, names["prediction"]
        lines = [
            str(history),
            f"best epoch: {history.best('val_accuracy')['epoch']}",
            f"prediction:\n{prediction.label} {round(prediction.probability, 3)}",
        ]
    (DOCS / "recorded" / "quickstart.txt").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

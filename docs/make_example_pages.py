"""Makes the pages of the examples: ``python docs/make_example_pages.py``, or with names to run only those.

Each example is run in an empty directory, as a reader would run it. What it prints goes into
``docs/examples/<name>.txt``, its image into ``docs/_static/examples/<name>.png``; both are committed. The pages are
written of these, of the example's docstring and of its source; a test compares them with what is committed, so that a
page can never tell of another script.
"""

import ast
import contextlib
import io
import runpy
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES, IMAGES = ROOT / "docs" / "examples", ROOT / "docs" / "_static" / "examples"
WIDEST = 900
"""Width in pixels beyond which an image is made smaller."""

MOST_BYTES = 60_000
"""Of an image, which is committed."""

CHAPTERS = {
    "First steps": ["quickstart", "linear_regression", "gradient_descent", "logistic_regression", "mlp_five_ways"],
    "Networks": ["lenet5", "cnn_predictions", "cifar10", "cifar10_fast", "resnet_densenet"],
    "From one task to another": ["vgg16_layers", "transfer"],
    "Data": ["label_layouts", "transforms_tour"],
    "Beyond classes": ["unet_masks", "autoencoders"],
    "The run": ["tensorboard_tour", "losses_optimizers", "save_resume", "own_step", "own_callback"],
}
"""Every example, in the order in which they are read."""


def names() -> list[str]:
    """Every example in the gallery."""
    return [name for chapter in CHAPTERS.values() for name in chapter]


def docstring(name: str) -> tuple[str, str]:
    """The title of an example, which is its docstring's first line up to a colon, and what the docstring says beyond it."""
    text = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text("utf-8"))) or ""
    first, _, rest = text.partition("\n\n")
    title, _, more = first.removesuffix(".").partition(": ")
    return title, f"{more[:1].upper()}{more[1:]}.\n\n{rest}" if more else rest


def page(name: str) -> str:
    """The text of an example's page."""
    title, rest = docstring(name)
    lines = [f".. _example-{name}:", "", title, "=" * len(title), "", rest, ""]
    if (IMAGES / f"{name}.png").is_file():
        lines += [f".. image:: /_static/examples/{name}.png", f"   :alt: What {name}.py draws", ""]
    if (PAGES / f"{name}.txt").is_file():
        lines += ["It prints:", "", f".. literalinclude:: {name}.txt", "   :language: text", ""]
    source = f"../../examples/{name}.py"
    lines += [
        f"The whole script, ``examples/{name}.py``:",
        "",
        f".. literalinclude:: {source}",
        "   :language: python",
        "",
    ]
    return "\n".join(lines)


def index() -> str:
    """The text of the gallery's first page."""
    lines = ["Examples", "========", ""]
    lines += [
        "Scripts of at most sixty lines that use public names only. Each runs by itself, without the net and in seconds, on",
        "data that it generates; with ``--data DIR`` many run on your own images.",
        "",
        ".. code-block:: console",
        "",
        "   $ python examples/linear_regression.py",
        "",
    ]
    for chapter, members in CHAPTERS.items():
        lines += [chapter, "-" * len(chapter), ""]
        for name in members:
            if (IMAGES / f"{name}.png").is_file():
                lines += [f".. image:: /_static/examples/{name}.png", "   :height: 130px", f"   :target: {name}.html"]
                lines += [f"   :alt: {docstring(name)[0]}", ""]
        lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in members), ""]
    return "\n".join(lines)


def record(name: str) -> float:
    """Runs an example, keeps what it prints and draws, and returns how many seconds it took."""
    sys.argv = [f"{name}.py"]
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        seconds = time.perf_counter() - began
        (PAGES / f"{name}.txt").write_text(said.getvalue(), "utf-8")
        drawn = Path("runs", name, f"{name}.png")
        if drawn.is_file():
            image = Image.open(drawn).convert("RGB")
            if 2 * image.width < WIDEST:
                image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
            image.thumbnail((WIDEST, WIDEST))
            keep(image, IMAGES / f"{name}.png")
    return seconds


def keep(image: Image.Image, path: Path) -> None:
    """Saves an image in as many colours as fit into the bytes that it may have."""
    for colours in (256, 128, 64, 32, 16, 8):
        image.quantize(colours).save(path, optimize=True)
        if path.stat().st_size < MOST_BYTES:
            return


def main() -> None:
    """Runs the examples that are named, or all, and writes every page."""
    for folder in (PAGES, IMAGES):
        folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or names():
        print(f"{name}: {record(name):.1f} s", flush=True)
    for name in names():
        (PAGES / f"{name}.rst").write_text(page(name), "utf-8")
    (PAGES / "index.rst").write_text(index(), "utf-8")


if __name__ == "__main__":
    main()

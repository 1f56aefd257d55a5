"""Makes the pages of the examples: ``python docs/make_example_pages.py``.

Give names to run only those, or ``--pages`` to run none.

Each example is run in an empty directory, as a reader would run it. What it prints goes into
``docs/examples/<name>.txt``, its image into ``docs/_static/examples/<name>.png``, its running time into
``docs/examples/seconds.json``; all are committed. The pages are made from these, from the example's docstring and from its
source. A test compares them with what is committed, so that a page always shows the script as it is.
"""

import ast
import contextlib
import io
import json
import runpy
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

ROOT = Path(__file__).parents[1]
PAGES, IMAGES = ROOT / "docs" / "examples", ROOT / "docs" / "_static" / "examples"
SECONDS = PAGES / "seconds.json"
"""How long each example ran when it was recorded, on two shared cores."""

THUMBNAIL = 300
"""Side in pixels of an image in the gallery."""

WIDEST = 900
"""Width in pixels beyond which an image is made smaller."""

MOST_BYTES = 60_000
"""Of an image, which is committed."""

CHAPTERS = {
    "First steps": ["quickstart", "linear_regression", "gradient_descent", "logistic_regression", "mlp_five_ways"],
    "Networks": ["lenet5", "cnn_predictions", "cifar10", "cifar10_fast", "resnet_densenet"],
    "From one task to another": ["vgg16_layers", "transfer"],
    "Data": ["label_layouts", "transforms_tour"],
    "Beyond classes": ["unet_masks", "autoencoders", "simclr", "gan"],
    "The run": ["tensorboard_tour", "losses_optimizers", "save_resume", "own_step", "own_callback"],
    "Better answers": ["distillation", "test_time_augmentation"],
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


def seconds(name: str) -> str:
    """The running time of an example, as the gallery tells it."""
    took = json.loads(SECONDS.read_text("utf-8"))[name]
    return "less than a second" if took < 1 else f"{took:.0f} s" if took < 90 else f"{took / 60:.0f} min"


def card(name: str) -> list[str]:
    """What the gallery shows of an example: its image, its title, one sentence and its running time."""
    _, rest = docstring(name)
    sentence = " ".join(rest.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".")
    lines = [".. container:: card", "", f"   .. image:: /_static/examples/thumbnails/{name}.png", "      :alt:", ""]
    lines += [f"   :doc:`{name}`", "", f"   {sentence}.", "", f"   *{seconds(name)}*", ""]
    return [f"   {line}" if line else "" for line in lines]


def index() -> str:
    """The text of the gallery's first page."""
    lines = ["Examples", "========", ""]
    lines += [
        "Each example is one short script that uses only public names. It runs offline, on data that it generates. Many run on",
        "your own images with ``--data DIR``. The times were measured on two shared cores without a GPU.",
        "",
        ".. code-block:: console",
        "",
        "   $ python examples/linear_regression.py",
        "",
    ]
    for chapter, members in CHAPTERS.items():
        lines += [chapter, "-" * len(chapter), "", ".. container:: cards", ""]
        for name in members:
            lines += card(name)
    lines += [".. toctree::", "   :hidden:", "", *(f"   {name}" for name in names()), ""]
    return "\n".join(lines)


def thumbnail(name: str) -> None:
    """Draws the square image of an example: the middle of what it draws, else the end of what it prints."""
    drawn = IMAGES / f"{name}.png"
    if drawn.is_file():
        square = ImageOps.fit(Image.open(drawn).convert("RGB"), (THUMBNAIL, THUMBNAIL), centering=(0.0, 0.0))
    else:
        square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (13, 43, 69))
        pen, font = ImageDraw.Draw(square), ImageFont.load_default(17)
        lines = (PAGES / f"{name}.txt").read_text("utf-8").splitlines()[-11:]
        for place, line in enumerate(lines):
            pen.text((14, 16 + 25 * place), " ".join(line.split()), font=font, fill=(230, 237, 243))
    (IMAGES / "thumbnails").mkdir(exist_ok=True)
    square.quantize(64).save(IMAGES / "thumbnails" / f"{name}.png", optimize=True)


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
    took = json.loads(SECONDS.read_text("utf-8")) if SECONDS.is_file() else {}
    for name in [] if sys.argv[1:] == ["--pages"] else sys.argv[1:] or names():
        took[name] = round(record(name), 1)
        print(f"{name}: {took[name]} s", flush=True)
        SECONDS.write_text(json.dumps(dict(sorted(took.items())), indent=1) + "\n", "utf-8")
    for name in names():
        thumbnail(name)
        (PAGES / f"{name}.rst").write_text(page(name), "utf-8")
    (PAGES / "index.rst").write_text(index(), "utf-8")


if __name__ == "__main__":
    main()

"""A generated dataset: coloured shapes that a small network learns in seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from cvkit.errors import ArgumentError, unknown_name
from cvkit.seeding import derive

__all__ = ["write_shapes"]

Point = tuple[float, float]
_LAYOUTS = ("folder", "parallel", "mask")


def _polygon(*corners: Point) -> Callable[[float], list[Point]]:
    """Returns a function from an angle to the corners turned by it; corners lie in the unit circle."""

    def turned(angle: float) -> list[Point]:
        cos, sin = math.cos(angle), math.sin(angle)
        return [(x * cos - y * sin, x * sin + y * cos) for x, y in corners]

    return turned


def _regular(count: int, *, start: float = -math.pi / 2, inner: float = 1.0) -> list[Point]:
    """Returns the corners of a regular polygon, or with ``inner`` below 1 of a star; the first lies at the angle ``start``."""
    radii = [1.0] * count if inner == 1.0 else [1.0, inner] * count
    angles = [start + 2 * math.pi * i / len(radii) for i in range(len(radii))]
    return [(r * math.cos(angle), r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)]


def _ring(inner: float) -> list[Point]:
    """Returns a circle with a hole of radius ``inner``, as one line that goes round it and back along the hole."""
    outer = [*_regular(48), _regular(48)[0]]
    return [*outer, *((inner * x, inner * y) for x, y in reversed(outer))]


_ARM = 0.3
_SHAPES: dict[str, Callable[[float], list[Point]]] = {
    "circle": _polygon(*_regular(48)),
    "square": _polygon(*_regular(4, start=math.pi / 4)),
    "triangle": _polygon(*_regular(3)),
    "ring": _polygon(*_ring(0.55)),
    "star": _polygon(*_regular(5, inner=0.4)),
    "cross": _polygon(
        *[(_ARM, 1), (_ARM, _ARM), (1, _ARM), (1, -_ARM), (_ARM, -_ARM), (_ARM, -1)],
        *[(-_ARM, -1), (-_ARM, -_ARM), (-1, -_ARM), (-1, _ARM), (-_ARM, _ARM), (-_ARM, 1)],
    ),
}


def write_shapes(
    root: str | Path,
    per_class: int = 50,
    size: int = 32,
    *,
    layout: Literal["folder", "parallel", "mask"] = "folder",
    classes: Sequence[str] = ("circle", "square", "triangle"),
    seed: int = 0,
) -> Path:
    """Writes a small dataset of coloured shapes on noisy ground as PNG files.

    Place, size, angle, colours and noise of each image are drawn from its seed, so the same call writes the same bytes.

    Args:
        root: The directory; made if missing.
        per_class: Images of each class.
        size: Side of the images in pixels.
        layout: ``"folder"``: ``root/<class>/<number>.png``; ``"parallel"``: ``root/images/<number>.png`` with the class's name
            in ``root/labels/<number>.txt``; ``"mask"``: ``root/images/<number>.png`` with ``root/masks/<number>.png``, whose
            levels are 0 for the ground and the place among ``classes``, from 1, for the shape.
        classes: Which shapes: ``"circle"``, ``"square"``, ``"triangle"``, ``"ring"``, ``"star"``, ``"cross"``.
        seed: Which images.

    Returns:
        ``root`` as a path.

    Raises:
        UnknownNameError: A shape or layout that is not known.
        ArgumentError: A number below 1, images under 8 pixels, no classes, or one that comes twice.
    """
    if layout not in _LAYOUTS:
        raise unknown_name("layout", layout, _LAYOUTS)
    for name in classes:
        if name not in _SHAPES:
            raise unknown_name("shape", name, _SHAPES)
    if per_class < 1 or size < 8 or not classes or len(set(classes)) != len(classes):
        raise ArgumentError(
            "write_shapes cannot draw this",
            got=f"per_class={per_class}, size={size}, classes={tuple(classes)}",
            expected="at least 1 image a class, of at least 8 pixels, and classes that differ",
            fix="write_shapes(root, per_class=50, size=32)",
        )
    root = Path(root)
    for place, name in enumerate(classes):
        for number in range(per_class):
            image, mask = _draw(_SHAPES[name], size, np.random.default_rng(derive(seed, "shapes", name, number)))
            if layout == "folder":
                image.save(_made(root / name) / f"{number:04d}.png")
                continue
            stem = f"{number * len(classes) + place:04d}"
            image.save(_made(root / "images") / f"{stem}.png")
            if layout == "parallel":
                (_made(root / "labels") / f"{stem}.txt").write_text(name + "\n", "utf-8")
            else:
                mask.point([0] * 128 + [place + 1] * 128).save(_made(root / "masks") / f"{stem}.png")
    return root


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _draw(
    shape: Callable[[float], list[Point]], size: int, random: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """Draws one image at four times its size, scales it down, and adds noise; beside it where the shape is (255)."""
    large = 4 * size
    ground, colour = random.integers(0, 256, 3), random.integers(0, 256, 3)
    while abs(int(ground.sum()) - int(colour.sum())) < 200:  # a shape that can be told from its ground
        colour = random.integers(0, 256, 3)
    image = Image.new("RGB", (large, large), tuple(int(level) for level in ground))
    radius = random.uniform(0.25, 0.42) * large
    x, y = random.uniform(radius, large - radius, 2)
    corners = [(x + radius * dx, y + radius * dy) for dx, dy in shape(random.uniform(-0.3, 0.3))]
    ImageDraw.Draw(image).polygon(corners, fill=tuple(int(level) for level in colour))
    mask = Image.new("L", (large, large), 0)
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    levels = np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    noisy = Image.fromarray((levels + random.normal(0, 8, levels.shape)).clip(0, 255).astype(np.uint8))
    return noisy, mask.resize((size, size), Image.Resampling.BOX)

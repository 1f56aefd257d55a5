"""Draws the charts of explanation/performance.rst from benchmarks/results.json: ``python docs/make_performance_charts.py``.

Each chart is an SVG in two variants, for light and for dark pages. A test draws them again and compares.
"""

import json
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
CHARTS = ROOT / "docs" / "_static" / "charts"
RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text("utf-8"))
LOOKS = {
    "light": {"text": "#22272e", "other": "#8c959f", "ours": "#0b6bcb", "line": "#57606a"},
    "dark": {"text": "#e6edf3", "other": "#6e7681", "ours": "#58a6ff", "line": "#9da7b3"},
}
WIDTH, LABEL, ROW, TOP = 720, 210, 34, 30

CHART_BARS = {
    "loop": (
        "µs added to a step, progress bar off (less is better)",
        [
            (name, title, ours)
            for name, title, ours in (
                ("loop.cvkit", "cvkit", True),
                ("loop.skorch", "skorch", False),
                ("loop.ignite", "Ignite", False),
                ("loop.fastai", "fastai", False),
                ("loop.lightning", "Lightning", False),
                ("loop.keras", "Keras on torch", False),
            )
        ],
    ),
    "data": (
        "times the speed of ImageFolder and a DataLoader (more is better)",
        [
            ("data_ratio.small_later", "small images, kept in memory", True),
            ("data_ratio.photos_memory", "photos, kept in memory", True),
            ("data_ratio.large", "large photos", True),
            ("data_ratio.photos", "photos", True),
            ("data_ratio.small_first", "small images, first epoch", True),
        ],
    ),
    "checkpoint": (
        "ms that the training waits for a save of 283 MB (less is better)",
        [
            ("checkpoint.background", "Checkpoint(background=True)", True),
            ("checkpoint.torch_save", "torch.save", False),
            ("checkpoint.checkpoint", "Checkpoint, verified", True),
        ],
    ),
}


def figure(key):
    group, _, name = key.partition(".")
    return RESULTS[group]["figures"][name]


def draw(title, bars, look):
    """A chart of horizontal bars with the spread of each as a line."""
    most = max(figure(key).get("high", figure(key)["value"]) for key, _, _ in bars)
    scale = (WIDTH - LABEL - 90) / most
    height = TOP + ROW * len(bars) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" '
        f'font-size="14" fill="{look["text"]}"><title>{escape(title)}</title>',
        f'<text x="0" y="16" font-weight="bold">{escape(title)}</text>',
    ]
    for place, (key, label, ours) in enumerate(bars):
        one, y = figure(key), TOP + ROW * place
        value, low, high = one["value"], one.get("low", one["value"]), one.get("high", one["value"])
        middle, end = y + ROW / 2 - 3, LABEL + max(high, value) * scale
        lines += [
            f'<text x="{LABEL - 10}" y="{middle + 5:.1f}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y + 4}" width="{max(value * scale, 1):.1f}" height="{ROW - 14}" rx="3" '
            f'fill="{look["ours" if ours else "other"]}"/>',
            f'<line x1="{LABEL + max(low, 0) * scale:.1f}" x2="{LABEL + high * scale:.1f}" y1="{middle:.1f}" '
            f'y2="{middle:.1f}" stroke="{look["line"]}" stroke-width="2"/>',
            f'<text x="{end + 8:.1f}" y="{middle + 5:.1f}">{value:,}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def charts():
    """Every chart by the name of its file."""
    for name, (title, bars) in CHART_BARS.items():
        for mode, look in LOOKS.items():
            yield f"{name}-{mode}.svg", draw(title, bars, look)


if __name__ == "__main__":
    CHARTS.mkdir(parents=True, exist_ok=True)
    for name, text in charts():
        (CHARTS / name).write_text(text, "utf-8")

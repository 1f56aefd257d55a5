"""A report as one HTML page with thumbnails."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from typing import Any

from cvkit.data.reporting.look import Look, pixels_of
from cvkit.data.reporting.rows import KINDS, Row
from cvkit.errors import CvkitError

__all__ = ["page"]

_SIDE = 112
_MOST_ROWS = 40
_MOST_CLASSES = 40
_EACH = 6

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
.bar { background: #4c78a8; height: .7rem; display: inline-block; vertical-align: middle; margin-right: .5rem; }
.error h2 { color: #b3261e; } .warning h2 { color: #8a5a00; } .suspicion h2 { color: #355e8d; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; }
.card { border: 1px solid #d0d7de; border-radius: 6px; padding: .5rem; max-width: 17rem; font-size: 12px;
  overflow-wrap: anywhere; }
.pair { display: flex; gap: .4rem; } figure { margin: 0; width: 7.5rem; }
img { max-width: 7rem; max-height: 7rem; image-rendering: auto; background: #eee; display: block; }
.none { width: 7rem; height: 4rem; background: #eee; color: #777; display: flex; align-items: center;
  justify-content: center; }
.strip img { display: inline-block; max-height: 3.6rem; margin: 1px; }
small, .muted { color: #57606a; }
"""


def page(report: Any) -> str:
    """Returns a report as an HTML page; names of files and classes are escaped.

    Args:
        report: A :class:`~cvkit.data.DataReport`.
    """
    body = "\n".join([*_head(report), *_classes(report), *_findings(report)])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Data report</title>'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _head(report: Any) -> Iterator[str]:
    yield "<h1>Data report</h1>"
    for split in report.datasets:
        first, *rest = report.summary(split)
        lines = [line.strip() for line in rest if not line.startswith("  classes:")]
        yield f"<p><b>{_text(first)}</b><br>{'<br>'.join(map(_text, lines))}</p>"
    for note in report.notes:
        yield f"<p class=muted>{_text(note)}</p>"
    counts = [(kind, len(report.of(kind))) for kind in KINDS]
    shown = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    yield f"<p><b>Findings:</b> {_text(shown or 'none')}</p>"


def _classes(report: Any) -> Iterator[str]:
    """Yields a table of the classes with a few images of each."""
    counts = report.counts
    names = sorted({name for one in counts.values() for name in one})
    if not names or len(names) > max(len(report.looks) // 2, 1):
        return
    most = max(count for one in counts.values() for count in one.values())
    yield "<h2>Classes</h2><table>"
    yield f"<tr><th>class</th>{''.join(f'<th>{_text(split)}</th>' for split in counts)}<th>images</th></tr>"
    examples: dict[str, list[Look]] = {}
    for look in report.looks:
        if look.label is not None and look.error is None and len(examples.setdefault(look.label, [])) < _EACH:
            examples[look.label].append(look)
    for name in names[:_MOST_CLASSES]:
        bars = "".join(
            f'<td><span class=bar style="width:{120 * one.get(name, 0) / most:.0f}px"></span>{one.get(name, 0)}</td>'
            for one in counts.values()
        )
        strip = "".join(_image(report, look.split, look.index, 64) for look in examples.get(name, ()))
        yield f"<tr><td>{_text(name)}</td>{bars}<td class=strip>{strip}</td></tr>"
    more = f"<p class=muted>and {len(names) - _MOST_CLASSES} more classes</p>" if len(names) > _MOST_CLASSES else ""
    yield f"</table>{more}"


def _findings(report: Any) -> Iterator[str]:
    places = {(look.split, look.name): look for look in report.looks}
    for kind, (severity, meaning) in KINDS.items():
        rows = report.of(kind)
        if not rows:
            continue
        more = f" <small>(the first {_MOST_ROWS} are shown)</small>" if len(rows) > _MOST_ROWS else ""
        yield f"<section class={severity}><h2>{severity}: {len(rows)} {_text(meaning)}{more}</h2><div class=cards>"
        for row in rows[:_MOST_ROWS]:
            yield _card(report, row, places)
        yield "</div></section>"


def _card(report: Any, row: Row, places: dict[tuple[str, str], Look]) -> str:
    sides = [(row.split, row.file, row.label)] + ([(row.other_split, row.other, row.other_label)] if row.other else [])
    figures = []
    for split, name, label in sides:
        look = places[split, name]
        shown = _image(report, split, look.index, _SIDE) if look.error is None else "<div class=none>no image</div>"
        said = f"<br><b>{_text(label)}</b>" if label else ""
        figures.append(f"<figure>{shown}<figcaption>{_text(split)}: {_text(name)}{said}</figcaption></figure>")
    return f"<div class=card><div class=pair>{''.join(figures)}</div><div class=muted>{_text(row.detail)}</div></div>"


def _image(report: Any, split: str, index: int, side: int) -> str:
    """Returns a thumbnail as an element with its data inside."""
    try:
        image = pixels_of(report.datasets[split][index][0])
    except CvkitError:  # the file has changed since it was looked at
        return "<div class=none>no image</div>"
    image.thumbnail((side, side))
    buffer, small = io.BytesIO(), max(image.size) <= 40
    image.save(buffer, "PNG" if small else "JPEG", quality=80)
    kind = "png" if small else "jpeg"
    width = f' width="{2 * image.width}"' if small else ""
    return f'<img src="data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}" alt=""{width}>'


def _text(value: str) -> str:
    return html.escape(value, quote=True)

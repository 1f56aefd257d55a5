"""Records a run that is killed and continued as an animated SVG: ``python docs/make_recordings.py``.

The lines and their order are what the program prints; pauses are shortened. The result is docs/_static/recordings/resume.svg.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
RECORDINGS = ROOT / "docs" / "_static" / "recordings"
LONGEST_PAUSE = 0.9
"""Seconds that a viewer waits for a line at most."""

TABLE = re.compile(r"\s*$|best:|last:|\*?\s+\d+ +[\d.]+|\s*epoch +(?:step|train_loss)|\d+ epochs")
"""Lines that are left out: the tables after the last epoch."""

WIDTH, LINE, CHARACTERS = 900, 21, 112
PROMPT, OUTPUT, NOTE = "#7ee787", "#e6edf3", "#ffd166"


def run(command, kill_after, lines, place):
    """Runs a command, files each line with its time, and kills the process after a line that matches."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        lines.append((time.monotonic() - began, OUTPUT, line.rstrip("\n")))
        if kill_after and re.match(kill_after, line):
            time.sleep(0.5)  # in the middle of the next epoch
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    return process.returncode


def record():
    """What a terminal shows of a run that is killed, and of the same command once more."""
    command = [sys.executable, "-u", str(ROOT / "examples" / "quickstart.py")]
    lines = [(0.0, PROMPT, "$ python examples/quickstart.py")]
    with tempfile.TemporaryDirectory() as place:
        code = run(command, r"epoch 3/6", lines, place)
        if code != -signal.SIGKILL:
            raise SystemExit(f"the run ended by itself: {code}")
        lines.append((0.0, NOTE, "$ kill -9 %1        # in the middle of epoch 4"))
        lines.append((0.0, PROMPT, "$ python examples/quickstart.py        # the same command again"))
        run(command, None, lines, place)
    return [one for one in lines if not TABLE.match(one[2])]


def draw(lines):
    """An SVG in which the lines appear one after the other."""
    height = LINE * len(lines) + 50
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="monospace" '
        'font-size="13"><title>A run is killed in epoch 4 and continues there</title>',
        "<style>text{white-space:pre;animation:show .01s linear both}@keyframes show{from{opacity:0}to{opacity:1}}"
        "@media (prefers-reduced-motion:reduce){text{animation:none}}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#0d1117"/>',
        *(
            f'<circle cx="{20 + 18 * i}" cy="18" r="5" fill="{c}"/>'
            for i, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        ),
    ]
    now = before = 0.0
    for place, (when, colour, line) in enumerate(lines):
        now += min(max(when - before, 0.35), LONGEST_PAUSE) if place else 0.2
        before = when
        shown = re.sub(r"( s)  [\d.]+ samples.*", r"\1", re.sub(r"  +", "  ", line))[:CHARACTERS]
        drawn.append(
            f'<text x="16" y="{50 + LINE * place}" fill="{colour}" style="animation-delay:{now:.1f}s">{escape(shown)}</text>'
        )
    return "\n".join([*drawn, "</svg>", ""])


if __name__ == "__main__":
    RECORDINGS.mkdir(parents=True, exist_ok=True)
    (RECORDINGS / "resume.svg").write_text(draw(record()), "utf-8")

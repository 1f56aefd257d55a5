"""Microseconds that ``fit()`` adds to a step of the hand-written loop, beside other trainers.

    python benchmarks/loop.py                  # everything that is installed, about fifteen minutes
    python benchmarks/loop.py --peers none     # cvkit and the tutorial loop
    python benchmarks/loop.py --peers skorch,ignite --rounds 20

Every contender has a process of its own, with one thread and a terminal that is read elsewhere, so that bars really
draw and neither the reading nor another library's patches count. In each round it runs the hand-written loop and
itself, bar off and on, in changing order, each over a short and a long epoch. What is reported is the median over the
rounds of ``slope(contender) - slope(hand-written)``, where ``slope`` is the CPU time of the long epoch minus that of the
short one, by step: what a call of ``fit`` costs once is in a column of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from peers import BARLESS, OURS, TITLES

SHORT = 50
"""Steps of the short epoch."""

LONGEST_RUN = 0.4
"""CPU seconds; the epochs of a slow contender are shortened to about this."""

KINDS = ("hand", "off", "on")


class Unfit(Exception):
    """A contender that cannot be measured here, and why."""


@dataclass
class Terminal:
    """A pseudo-terminal that is read by a thread, so that whoever draws on it never waits."""

    master: int = field(init=False)
    slave: int = field(init=False)
    drawn: int = 0
    tail: bytes = b""

    def __post_init__(self) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        # Linux ends a terminal's other side with an error (EIO) when the last process on it has gone
        with contextlib.suppress(OSError):
            while block := os.read(self.master, 65536):
                self.drawn += len(block)
                self.tail = (self.tail + block)[-2000:]


class Contender:
    """One contender's process."""

    def __init__(self, name: str, steps: int) -> None:
        """Starts it.

        Args:
            name: Its module in ``peers``.
            steps: Steps of the long epoch, at most.
        """
        self.name = name
        self.steps = steps
        self.kinds = KINDS[:2] if name in BARLESS else KINDS
        self.runs: list[dict[str, tuple[float, float]]] = []
        self.terminal = Terminal()
        answers, descriptor = os.pipe()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve", name, str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=self.terminal.slave,
            stderr=self.terminal.slave,
            pass_fds=[descriptor],
            env=environment,
            text=True,
        )
        os.close(descriptor)
        os.close(self.terminal.slave)
        self.answers = os.fdopen(answers)
        self.difference = 0.0

    def _answer(self, key: str) -> float:
        line = self.answers.readline()
        if not line:
            raise Unfit(f"its process ended: {self.terminal.tail[-500:].decode(errors='replace')}")
        answer = json.loads(line)
        if "skip" in answer:
            raise Unfit(answer["skip"])
        return float(answer[key])

    def time(self, kind: str, steps: int) -> float:
        """Returns the CPU seconds of one run.

        Args:
            kind: ``"hand"``, ``"off"`` or ``"on"``.
            steps: Batches in the epoch.
        """
        if self.process.stdin is None:
            raise Unfit("its standard input is closed")
        self.process.stdin.write(json.dumps({"kind": kind, "steps": steps}) + "\n")
        self.process.stdin.flush()
        return self._answer("seconds")

    def warm_up(self) -> None:
        """Runs everything once, fits the length of the epoch to the contender's speed, and sees that its bar draws.

        Raises:
            Unfit: It is not installed, fails, trains other weights, or its bar draws nothing.
        """
        self.difference = self._answer("difference")
        for kind in self.kinds:
            self.time(kind, SHORT)
        slowest, before = self.kinds[-1], self.terminal.drawn
        short = self.time(slowest, SHORT)
        time.sleep(0.1)
        if slowest == "on" and self.terminal.drawn == before:
            raise Unfit("its bar draws nothing, so bar on would not be bar on")
        step = max((self.time(slowest, 4 * SHORT) - short) / (3 * SHORT), 1e-6)
        self.steps = max(min(self.steps, int(LONGEST_RUN / step)), 4 * SHORT)

    def round(self, number: int) -> None:
        """Runs each kind once, over both lengths, in an order that changes with the round."""
        shift = number % len(self.kinds)
        order = self.kinds[shift:] + self.kinds[:shift]
        order = order[::-1] if number % 2 else order
        self.runs.append({kind: (self.time(kind, SHORT), self.time(kind, self.steps)) for kind in order})

    def slope(self, run: dict[str, tuple[float, float]], kind: str) -> float:
        """Returns the microseconds of a step in one round."""
        short, long = run[kind]
        return (long - short) / (self.steps - SHORT) * 1e6

    def added(self, kind: str) -> list[float]:
        """Returns the microseconds added to a step, one value a round."""
        return [self.slope(run, kind) - self.slope(run, "hand") for run in self.runs]

    def once(self) -> float:
        """Returns the milliseconds that a call costs whatever the number of steps, bar off."""
        return statistics.median(run["off"][0] * 1e3 - SHORT * self.slope(run, "off") / 1e3 for run in self.runs)

    def close(self) -> None:
        """Ends the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        self.answers.close()


def start(names: list[str], steps: int) -> list[Contender]:
    """Starts contenders, and says of each that cannot be measured why not."""
    found = []
    for name in names:
        contender = Contender(name, steps)
        try:
            contender.warm_up()
        except Unfit as reason:
            say(f"skipped {name}: {reason}")
            contender.close()
        else:
            found.append(contender)
            close = f"weights within {contender.difference:.0e} of the hand-written loop's"
            say(f"{name}: {close}; {contender.steps} steps")
    return found


def say(line: str) -> None:
    """Prints a remark beside the table."""
    print(line, file=sys.stderr, flush=True)


def spread(values: list[float]) -> str:
    """Returns the median and the 10th to 90th percentile, in words that fit a table."""
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    digits = 1 if abs(statistics.median(values)) < 100 else 0
    return f"{statistics.median(values):.{digits}f} ({deciles[0]:.{digits}f} … {deciles[-1]:.{digits}f})"


def table(contenders: list[Contender]) -> str:
    """Returns the results as a Markdown table."""
    lines = [
        "| | added µs a step, bar off (10–90 %) | bar on (10–90 %) | once a call, ms |",
        "| --- | ---: | ---: | ---: |",
    ]
    for one in contenders:
        on = spread(one.added("on")) if "on" in one.kinds else "–"
        lines.append(f"| {TITLES[one.name]} | {spread(one.added('off'))} | {on} | {one.once():.1f} |")
    return "\n".join(lines)


def wanted(peers: str) -> list[str]:
    """Returns the contenders that ``--peers`` asks for."""
    others = [name for name in TITLES if name not in OURS]
    named = others if peers == "all" else [] if peers == "none" else peers.split(",")
    unknown = sorted(set(named) - set(others))
    if unknown:
        raise SystemExit(f"--peers got {', '.join(unknown)}; expected all, none, or some of {','.join(others)}")
    return [*OURS, *(name for name in others if name in named)]


def measure(names: list[str], rounds: int, steps: int) -> str:
    """Runs the benchmark and returns its report."""
    contenders = start(names, steps)
    try:
        for number in range(rounds):
            shift = number % len(contenders)
            for contender in contenders[shift:] + contenders[:shift]:
                contender.round(number)
            say(f"round {number + 1} of {rounds}")
    finally:
        for contender in contenders:
            contender.close()
    steps_taken = spread([one.slope(run, "hand") for one in contenders for run in one.runs])
    how = f"{rounds} rounds of up to {steps} steps, one thread"
    return f"A step of the hand-written loop: {steps_taken} µs CPU; {how}.\n\n{table(contenders)}"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="rounds (default 50)")
    parser.add_argument("--steps", type=int, default=800, help="steps of the long epoch (default 800)")
    parser.add_argument("--peers", default="all", help="all, none, or names with commas (default all)")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "DESCRIPTOR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        from peers.serve import serve

        serve(options.serve[0], int(options.serve[1]))
        return
    if options.rounds < 2 or options.steps < 2 * SHORT:
        raise SystemExit(f"got --rounds {options.rounds} --steps {options.steps}; expected at least 2 and {2 * SHORT}")
    print(measure(wanted(options.peers), options.rounds, options.steps))


if __name__ == "__main__":
    main()

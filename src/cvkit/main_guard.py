"""Scripts without a main guard: what they start again by accident is refused with the two lines to write."""

from __future__ import annotations

import multiprocessing

from cvkit.errors import ArgumentError

__all__ = ["LINES", "check"]

LINES = """put what the script does into a function main(), and end the script with these two lines:
    if __name__ == "__main__":
        main()"""
"""What to write, for messages."""


def check(what: str) -> None:
    """Refuses to go on in a process that is still importing the script it was started from.

    A process started by spawn or forkserver first imports the script. Where the script trains at its top level, each
    such process would train again and start processes of its own.

    Args:
        what: What was called, e.g. ``"fit"``.

    Raises:
        ArgumentError: The process is still importing the script.
    """
    # set by multiprocessing while it imports the script; its own check in Process.start() reads the same attribute
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ArgumentError(
            f"{what} was called while a new process imports the script",
            got="a script without a main guard, in a process that was started by spawn or forkserver",
            expected="a script that only defines things when it is imported",
            fix=LINES,
        )

"""Runs ``program.py`` in processes forked off one that has imported everything: importing takes longer than such a run.

Reads a request a line, ``{"arguments": […], "kill": … or null, "after": seconds or null, "how": signal, "log": path, "limit": seconds}``,
and answers with a line, ``{"code": exit code, "left": [ids of processes that the run has left behind]}``. ``after`` so many seconds
the run is killed from outside; by any signal but SIGKILL as ``timeout`` does it, once alone and once with all of its workers.
"""

import gc
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import program
import tensorboardX  # noqa: F401  # or each run would import it
import torch


def run(request: dict) -> None:
    """Becomes the program, in a forked process: its own session, output and limit of time."""
    os.setsid()  # by which what it leaves behind is found
    signal.alarm(request["limit"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request["kill"] is not None:
        os.environ["KILL"] = json.dumps(request["kill"])
    program.main(request["arguments"])


def members(session: int) -> list[int]:
    """Returns the processes of a session that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if int(of) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def end(process: multiprocessing.Process, how: str) -> None:
    """Ends a run from outside, if it has not ended."""
    if how == "SIGKILL":
        process.kill()
    elif process.is_alive() and os.getsid(process.pid) == process.pid:
        os.kill(process.pid, signal.Signals[how])
        os.killpg(process.pid, signal.Signals[how])


def warm() -> None:
    """Imports what torch imports only when an optimizer takes its first step; no thread starts by that."""
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight]).step()
    gc.freeze()  # else each run would begin by copying what its collector looks at


def main() -> None:
    """Serves until the end of the input."""
    warm()
    fork = multiprocessing.get_context("fork")
    for line in sys.stdin:
        request = json.loads(line)
        process = fork.Process(target=run, args=(request,))
        process.start()
        if request["after"] is not None:
            process.join(request["after"])
            end(process, request["how"])
        process.join()
        print(json.dumps({"code": process.exitcode, "left": members(process.pid)}), flush=True)
    gc.unfreeze()  # libraries complain of what is left at the end


if __name__ == "__main__":
    main()

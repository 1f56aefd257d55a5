"""Runs the program on several ranks as often as asked: each rank is forked off this process, which has imported torch.

Reads a request a line, ``{"ranks": 2, "output": …, "options": {…}, "limit": 60, "signal": [seconds, rank or null, name]}``,
and answers with the exit code of each rank; what they say goes to ``OUTPUT-RANK.log``.
"""

import json
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

import cvkit.callbacks  # noqa: F401  # once, for all ranks of all requests

PROGRAM = Path(__file__).parent / "program.py"


def begin(request, rank, port):
    """Forks one rank; returns its process in the parent, and runs the program in the child."""
    pid = os.fork()
    if pid:
        return pid
    log = os.open(f"{request['output']}-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.environ["CVKIT_RANK_TIMEOUT"] = str(request.get("timeout", 60))
    if request["ranks"] > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(request["ranks"]), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = [str(PROGRAM), request["output"], json.dumps(request["options"])]
    runpy.run_path(str(PROGRAM), run_name="__main__")
    sys.exit(0)  # by the whole of the interpreter's own end, which is part of what is tested


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(request):
    port, began = free_port(), time.monotonic()
    ranks = {begin(request, rank, port): rank for rank in range(request["ranks"])}
    codes, sent = {}, request.get("signal") is None
    while len(codes) < len(ranks):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in ranks:
            codes[ranks[pid]] = os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if not sent and passed > request["signal"][0]:
            sent = True
            for one, rank in ranks.items():
                if request["signal"][1] in (None, rank) and rank not in codes:
                    os.kill(one, getattr(signal, request["signal"][2]))
        if passed > request.get("limit", 120):
            for one, rank in ranks.items():
                if rank not in codes:
                    os.kill(one, signal.SIGKILL)
        time.sleep(0.005)
    return {"codes": [codes[rank] for rank in sorted(codes)], "seconds": time.monotonic() - began}


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)

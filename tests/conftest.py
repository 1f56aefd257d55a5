"""What holds for every test: one thread a process, no network, examples of Hypothesis that are the same in every run."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; for the processes that tests start as well

import socket
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# A shell that starts the tests in the background has them ignore Ctrl-C, and what is tried with it would not be told.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


torch.set_num_threads(1)
settings.register_profile(
    "cvkit", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("cvkit")

_connect = socket.socket.connect


def _local_only(self, address):
    if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
        pytest.fail(f"a test reached for the network: {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _local_only)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]

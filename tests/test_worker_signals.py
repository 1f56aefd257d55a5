"""Who ends worker processes: what says so to them. How they obey is tested with loaders, and by the kills."""

import os
import pickle
import signal
import threading

import pytest

from cvkit import worker_signals
from cvkit.worker_signals import Shield, Shielded, starting

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="POSIX signals")


def init(worker):
    init.worker = worker


def test_it_is_held_until_each_holder_has_let_go_and_workers_see_it():
    shield = Shield()
    before = shield.shielded().flag
    assert (shield.held, before.value) == (False, False)
    with shield.holding(), shield.holding():
        assert (shield.held, before.value) == (True, True)
        assert shield.shielded().flag is before
    assert (shield.held, before.value) == (False, False)
    shield.let_go()
    shield.hold()
    assert (shield.held, before.value) == (True, True), "one that was let go too often is held all the same"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_lets_nothing_go_and_has_a_shield_of_its_own():
    shield = worker_signals.mine()
    with shield.holding():
        flag = shield.shielded().flag
        child = os.fork()
        if child == 0:
            shield.let_go()
            own = worker_signals.mine()
            os._exit(0 if flag.value and own is not shield and own.owner == os.getpid() and not own.held else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert flag.value
    assert worker_signals.mine() is shield


def test_in_its_owner_it_only_calls_what_it_has():
    """A loader may have threads for workers."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=Shield().shielded(init), args=(3,))
    thread.start()
    thread.join()
    assert init.worker == 3
    Shield().shielded()(0)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_pickled_for_any_other_purpose_it_is_what_it_has():
    made = Shield().shielded(init)
    assert isinstance(made, Shielded)
    assert pickle.loads(pickle.dumps(made)) is init
    assert pickle.loads(pickle.dumps(Shield().shielded())) is None


@pytest.mark.parametrize(("method", "held_back"), [("fork", True), ("spawn", True), ("forkserver", False)])
def test_signals_wait_while_workers_start(method, held_back):
    received, own = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with starting(method):
            signal.raise_signal(signal.SIGTERM)
            assert received == ([] if held_back else [signal.SIGTERM])
        assert received == [signal.SIGTERM]
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGINT}
    finally:
        signal.signal(signal.SIGTERM, own)

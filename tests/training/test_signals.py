"""Ctrl-C and SIGTERM: the step ends, the checkpoint is saved, handlers are put back."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError, DataError
from cvkit.training import Callback, engine, fit, load_checkpoint

BATCHES = 6


class Send(Callback):
    """Sends signals to this process at a hook of the run."""

    def __init__(self, *signals, hook="on_batch_start", step=2):
        self.signals, self.step, self.steps = signals, step, []
        setattr(self, hook, self.send)

    def on_batch_end(self, state):
        self.steps.append(state.step)

    def send(self, state):
        if state.step == self.step and self.signals:
            signals, self.signals = self.signals, ()
            for one in signals:
                signal.raise_signal(one)


def run(directory, *callbacks, epochs=2, resume=True, **kwargs):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(BATCHES * 2, 4), torch.randint(0, 3, (BATCHES * 2,)))
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3))
    loader = DataLoader(data, batch_size=2, shuffle=True)
    checkpoint = [Checkpoint(directory, monitor=None)] if directory is not None else []
    return fit(
        model,
        loader,
        epochs=epochs,
        schedule="cosine",
        callbacks=[*callbacks, *checkpoint],
        device="cpu",
        progress=False,
        resume=resume if checkpoint else False,
        **kwargs,
    )


def weights(result):
    return b"".join(value.numpy().tobytes() for value in result.model.state_dict().values())


@pytest.fixture(autouse=True)
def _handlers():
    """Every test leaves the handlers as they were, and one that fails does not end pytest."""
    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {which: signal.getsignal(which) for which in before}
    for which, held in before.items():
        signal.signal(which, held)
    assert after == before, "fit left handlers behind"


@pytest.fixture
def terminated():
    """A SIGTERM handler of the script's own, so that the end of the process can be watched from inside."""
    received, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("hook", ["on_batch_start", "on_gradients_ready", "on_batch_end"])
def test_ctrl_c_ends_the_step_saves_and_returns(tmp_path, hook):
    undisturbed = run(tmp_path / "a")
    first = run(tmp_path / "b", Send(signal.SIGINT, hook=hook))
    assert first.stop_reason == "interrupted"
    assert first.epochs == 0
    assert first.steps == (2 if hook == "on_batch_end" else 3), "the step under way ends, and no other begins"
    assert first.last_checkpoint == tmp_path / "b" / "last.pt"
    assert load_checkpoint(first.last_checkpoint)["training"]["step"] == first.steps
    second = run(tmp_path / "b")
    assert second.stop_reason == "finished"
    assert weights(second) == weights(undisturbed)
    assert second.history == undisturbed.history


def test_ctrl_c_waits_for_the_end_of_an_accumulated_group(tmp_path):
    result = run(tmp_path, Send(signal.SIGINT, step=1), accumulate=2)
    assert result.steps == 2
    assert load_checkpoint(tmp_path / "last.pt")["training"]["batch"] == 4


@pytest.mark.parametrize("hook", ["on_fit_start", "on_epoch_start", "on_epoch_end"])
def test_ctrl_c_between_steps_loses_nothing(tmp_path, hook):
    undisturbed = run(tmp_path / "a")
    first = run(tmp_path / "b", Send(signal.SIGINT, hook=hook, step=BATCHES if hook == "on_epoch_end" else 0))
    assert first.stop_reason == "interrupted"
    assert first.last_checkpoint is not None
    second = run(tmp_path / "b")
    assert weights(second) == weights(undisturbed)
    assert second.history == undisturbed.history


def test_ctrl_c_after_an_epoch_that_is_not_due_for_saving_is_saved_all_the_same(tmp_path):
    class Late(Callback):
        order = 2

        def on_epoch_end(self, state):
            signal.raise_signal(signal.SIGINT)

    undisturbed = run(tmp_path / "a", epochs=4)
    run(None, Checkpoint(tmp_path / "b", monitor=None, every_epochs=3), Late(), epochs=4)
    assert load_checkpoint(tmp_path / "b" / "last.pt")["training"]["step"] == BATCHES
    result = run(tmp_path / "b", epochs=4)
    assert weights(result) == weights(undisturbed)
    assert result.history == undisturbed.history


def test_without_a_checkpoint_ctrl_c_returns_the_model_as_it_stands():
    result = run(None, Send(signal.SIGINT))
    assert (result.stop_reason, result.steps, result.last_checkpoint) == ("interrupted", 3, None)


@pytest.mark.parametrize("hook", ["on_batch_start", "on_gradients_ready", "on_epoch_start", "on_fit_end"])
@pytest.mark.parametrize("signals", [(signal.SIGINT,) * 2, (signal.SIGTERM,) * 3, (signal.SIGTERM, signal.SIGINT)])
def test_a_signal_that_comes_again_changes_nothing(tmp_path, terminated, hook, signals):
    undisturbed = run(tmp_path / "a")
    late = [Send(*signals[1:], hook=hook, step=3)] if hook == "on_fit_end" else []
    early = Send(signals[0]) if late else Send(*signals, hook=hook, step=0 if hook == "on_epoch_start" else 2)
    first = run(tmp_path / "b", early, *late)
    assert first.stop_reason == ("interrupted" if signals[0] is signal.SIGINT else "terminated")
    assert terminated == [signal.SIGTERM] * (signal.SIGTERM in signals), "at the end of fit, once"
    assert load_checkpoint(tmp_path / "b" / "last.pt")["training"]["step"] == first.steps
    second = run(tmp_path / "b")
    assert weights(second) == weights(undisturbed)
    assert second.history == undisturbed.history


def test_a_second_ctrl_c_while_saving_does_not_disturb_it(tmp_path, monkeypatch):
    save = torch.save

    def interrupted(content, file):
        signal.raise_signal(signal.SIGINT)
        save(content, file)

    monkeypatch.setattr(torch, "save", interrupted)
    result = run(tmp_path, Send(signal.SIGINT))
    assert load_checkpoint(tmp_path / "last.pt")["training"]["step"] == result.steps == 3


def test_a_second_ctrl_c_says_what_a_third_does(capfd):
    run(None, Send(signal.SIGINT, signal.SIGINT))
    assert capfd.readouterr().err == (
        "cvkit: the run is stopping and will be saved; Ctrl-C once more ends it now, without that\n"
    )


def test_a_third_ctrl_c_raises_at_once(tmp_path):
    send = Send(signal.SIGINT, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"in callback Send\.on_batch_start"):
        run(tmp_path, send)
    assert send.steps == [1, 2]
    assert not (tmp_path / "last.pt").exists(), "a run torn out of a step is not where its last save says"


def test_a_third_ctrl_c_while_saving_leaves_no_half_file(tmp_path, monkeypatch):
    run(tmp_path, Send(signal.SIGINT))
    before = (tmp_path / "last.pt").read_bytes()
    save = torch.save

    def interrupted(content, file):
        save(content, file)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Send(signal.SIGINT, step=5))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert (tmp_path / "last.pt").read_bytes() == before


def test_sigterm_saves_and_then_does_what_it_always_did(tmp_path, terminated):
    undisturbed = run(tmp_path / "a")
    first = run(tmp_path / "b", Send(signal.SIGTERM))
    assert first.stop_reason == "terminated"
    assert terminated == [signal.SIGTERM], "the script's own handler is called, once, after the run"
    second = run(tmp_path / "b")
    assert weights(second) == weights(undisturbed)
    assert terminated == [signal.SIGTERM]


def test_the_checkpoint_is_there_when_the_scripts_own_handler_is_called(tmp_path):
    seen, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append((tmp_path / "last.pt").exists()))
    try:
        run(tmp_path, Send(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [True]


def test_a_handler_of_the_scripts_own_gets_the_third_ctrl_c_and_is_put_back():
    calls = []

    def own(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGINT, own)
    try:
        result = run(None, Send(*[signal.SIGINT] * 3))
        assert calls == [signal.SIGINT]
        assert result.stop_reason == "interrupted"
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = run(None, Send(signal.SIGINT))
        assert result.stop_reason == "finished"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_handlers_are_put_back_after_an_error(error):
    class Fails(Callback):
        def on_batch_end(self, state):
            raise error

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(error):
        run(None, Fails())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_save_that_fails_after_a_sigterm_is_an_error(tmp_path, terminated, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match="No space left"):
        run(tmp_path, Send(signal.SIGTERM))


def test_handlers_are_set_only_while_training():
    seen = []

    class Looks(Callback):
        def on_batch_start(self, state):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    run(None, Looks(), epochs=1)
    assert before not in seen
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_fit_works_and_leaves_the_handlers_alone():
    results, seen = [], []

    class Looks(Callback):
        def on_batch_start(self, state):
            seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    expected = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: results.append(run(None, Looks(), epochs=1)))
    thread.start()
    thread.join(60)
    assert results[0].stop_reason == "finished"
    assert set(seen) == {expected}


SCRIPT = """
import os, sys, time
import torch
from torch import nn
from cvkit.callbacks import Checkpoint
from cvkit.training import Callback, fit

class Slow(Callback):
    def on_batch_end(self, state):
        open(sys.argv[1] + "/training", "w").close()
        time.sleep(0.05)

torch.manual_seed(0)
batches = [(torch.randn(2, 4), torch.randint(0, 3, (2,))) for _ in range(2000)]
result = fit(nn.Linear(4, 3), batches, epochs=1, callbacks=[Slow(), Checkpoint(sys.argv[1], monitor=None)],
             device="cpu", progress=False, preflight=False)
print(result.stop_reason, result.steps, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("which", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_process_that_gets_a_signal_saves_and_ends_with_its_usual_code(tmp_path, which, code):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "training").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the run did not begin"
            time.sleep(0.02)
        process.send_signal(which)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    content = load_checkpoint(tmp_path / "last.pt")
    assert 0 < content["training"]["step"] < 2000
    if which is signal.SIGINT:
        assert out.split() == ["interrupted", str(content["training"]["step"])]
        assert err == ""


class Sleepy(Dataset):
    """Waits for its worker to be killed."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(4), 0


def quiet(loader, *callbacks, **options):
    return fit(
        nn.Linear(4, 3), loader, epochs=2, callbacks=callbacks, device="cpu", progress=False, preflight=False, **options
    )


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("round", range(5))
def test_a_worker_of_a_torch_loader_that_the_system_ends_is_an_error_that_says_so(round):
    with pytest.raises(DataError) as caught:
        quiet(DataLoader(Sleepy(), batch_size=2, num_workers=1, multiprocessing_context="fork"))
    what, got, expected, fix = str(caught.value).split("\n")
    assert what == "a worker process died"
    assert got.startswith("  got: DataLoader worker ")
    assert expected == "  expected: processes that load until the epoch ends"
    assert fix == (
        "  fix: most likely the system ran out of memory and ended it: take fewer workers (num_workers=0 for none)"
    )
    for _ in range(3):  # while the traceback, here in ``caught``, keeps what torch knows of its workers
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_what_a_dataset_raises_in_a_worker_is_not_taken_for_a_death():
    class Fails(Sleepy):
        def __getitem__(self, index):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match=r"(?s)^Caught RuntimeError in DataLoader worker process 0.*mine"):
        quiet(DataLoader(Fails(), num_workers=1, multiprocessing_context="fork"))


class Noted:
    """A worker_init_fn of a user's own."""

    def __call__(self, worker):
        self.worker = worker


class Zeros(Sleepy):
    def __getitem__(self, index):
        return torch.zeros(4), 0


def test_a_loader_has_its_own_worker_init_fn_again_after_each_epoch_and_after_an_error():
    own = Noted()
    loader = DataLoader(Zeros(), batch_size=2, num_workers=1, multiprocessing_context="fork", worker_init_fn=own)
    seen = []

    class Looks(Callback):
        def on_batch_end(self, state):
            seen.append(state.train.worker_init_fn)
            assert pickle.loads(pickle.dumps(state.train.worker_init_fn)).__class__ is Noted, "for any other purpose"
            assert copy.deepcopy(state.train).worker_init_fn.__class__ is Noted

        def on_epoch_end(self, state):
            assert state.train.worker_init_fn is own

    quiet(loader, Looks())
    assert seen[0].init is own
    assert loader.worker_init_fn is own

    class Fails(Callback):
        def on_batch_end(self, state):
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        quiet(loader, Fails())
    assert loader.worker_init_fn is own


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_worker_that_fit_did_not_start_and_that_the_signal_ends_too_does_not_lose_the_save(
    tmp_path, terminated, accumulate
):
    """Workers that a user's own code has started before, here those of a persistent loader, obey the signal."""
    loader = DataLoader(Zeros(), batch_size=2, num_workers=1, multiprocessing_context="fork", persistent_workers=True)
    next(iter(loader))
    (worker,) = loader._iterator._workers

    class Sends(Callback):
        def on_batch_start(self, state):
            if state.batch_index == 1:
                os.kill(worker.pid, signal.SIGTERM)
                worker.join()
                signal.raise_signal(signal.SIGTERM)

    result = quiet(loader, Sends(), Checkpoint(tmp_path, monitor=None), accumulate=accumulate)
    assert (result.stop_reason, terminated) == ("terminated", [signal.SIGTERM])
    assert load_checkpoint(tmp_path / "last.pt")["training"]["batch"] == 2


@pytest.mark.parametrize(("group_open", "stop", "ends"), [
    (False, "terminated", True), (False, "interrupted", True), (True, "terminated", False), (False, None, False),
    (False, "enough", False),
])  # fmt: skip
@pytest.mark.parametrize("error", [
    RuntimeError("DataLoader worker (pid 3) is killed by signal: Terminated. "), DataError("a worker process died"),
])  # fmt: skip
def test_batches_end_without_an_error_only_where_a_signal_stops_the_run_between_two_updates(
    group_open, stop, ends, error
):
    def batches():
        yield 1
        raise error

    state = SimpleNamespace(stop_reason=stop, engine=SimpleNamespace(group_open=group_open))
    if ends:
        assert list(engine.until_lost(batches(), state)) == [1]
    else:
        with pytest.raises(type(error), match=r"^(DataLoader worker|a worker process died)"):
            list(engine.until_lost(batches(), state))
    with pytest.raises(KeyError):
        list(engine.until_lost(iter([{}["any other"]] for _ in range(1)), state))

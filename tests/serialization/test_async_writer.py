import threading
import time

import pytest
import torch
from torch import nn

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError
from cvkit.serialization.async_writer import AsyncWriter, Buffers
from cvkit.training import Callback, load_checkpoint


def batches(count=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, generator=generator), torch.randint(0, 2, (4,), generator=generator)) for _ in range(count)
    ]


def train(directory, *extra, epochs=2, **options):
    torch.manual_seed(0)
    checkpoint = Checkpoint(directory, monitor="train_loss", every_steps=1, **options)
    torch.manual_seed(2)
    return cvkit.fit(
        nn.Linear(3, 2), batches(), epochs=epochs, progress=False, resume=True, callbacks=[*extra, checkpoint], seed=2
    )


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_copy_is_equal_of_its_own_memory_and_in_the_same_memory_each_time():
    shared = torch.randn(3, 4)
    content = {
        "a": shared,
        "b": [shared, shared.t(), (1, "x", None)],
        "c": {"d": torch.zeros(0), 2: torch.ones(2, dtype=torch.bool)},
    }
    content["wide"] = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    buffers = Buffers()
    first = buffers.copy(content)
    assert equal(first, content)
    assert first["a"] is first["b"][0]
    assert first["a"].data_ptr() != shared.data_ptr()
    assert first["wide"].stride() == content["wide"].stride()
    shared.add_(1)
    assert not equal(first, content)
    second = buffers.copy(content)
    assert equal(second, content)
    assert second["a"].data_ptr() == first["a"].data_ptr()


def test_a_copy_follows_a_content_that_changes_its_shape_and_keeps_lists_as_they_were():
    buffers, rows = Buffers(), [{"epoch": 1}]
    first = buffers.copy({"x": torch.ones(2), "rows": rows, "gaps": torch.arange(10)[::2]})
    rows.append({"epoch": 2})
    rows[0]["epoch"] = 5
    assert first["rows"] == [{"epoch": 1}]
    assert first["gaps"].tolist() == [0, 2, 4, 6, 8]
    assert buffers.copy({"x": torch.ones(3, dtype=torch.float64)})["x"].tolist() == [1, 1, 1]


def test_one_job_at_a_time_and_its_error_comes_at_the_next_call():
    writer, running, most, lock = AsyncWriter(), 0, 0, threading.Lock()

    def job():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    for _ in range(4):
        writer.start(job)
    writer.wait()
    assert (most, running, writer.busy) == (1, 0, False)

    def fails():
        raise OSError("disk")

    writer.start(fails)
    with pytest.raises(OSError, match="disk"):
        writer.start(job)
    assert most == 1
    writer.wait()
    writer.start(fails)
    with pytest.raises(OSError, match="disk"):
        writer.wait()
    writer.wait()


def test_the_files_are_those_of_saving_in_the_foreground(tmp_path):
    train(tmp_path / "a", background=False, keep_last=2)
    train(tmp_path / "b", background=True, keep_last=2)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        assert equal(load_checkpoint(tmp_path / "a" / name), load_checkpoint(tmp_path / "b" / name))


def test_what_is_written_is_the_state_of_its_step_whatever_is_trained_meanwhile(tmp_path, monkeypatch):
    from cvkit.callbacks import checkpoint

    save, saved, free = checkpoint.save_checkpoint, [], threading.Event()

    def slow(path, content):
        free.wait(5)
        saved.append((content["training"]["step"], {k: v.clone() for k, v in content["model"].items()}))
        return save(path, content)

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    trained = {}

    class Weights(Callback):
        def on_batch_end(self, state):
            trained[state.step] = {k: v.clone() for k, v in state.model.state_dict().items()}
            if state.step == 2:
                free.set()

    train(tmp_path, Weights(), background=True, epochs=1)
    assert saved
    assert all(equal(weights, trained[step]) for step, weights in saved)


@pytest.mark.parametrize("step", [1, 8])
def test_a_disk_that_is_full_ends_the_run_at_the_next_save_or_at_the_end_and_keeps_the_file_before(
    tmp_path, monkeypatch, step
):
    from cvkit.callbacks import checkpoint

    save = checkpoint.save_checkpoint

    def full(path, content):
        if content["training"]["step"] == step:
            raise CheckpointError(f"cannot write the checkpoint {path}")
        return save(path, content)

    monkeypatch.setattr(checkpoint, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        train(tmp_path, background=True)
    left = list(tmp_path.glob("*.pt"))
    assert all(load_checkpoint(path) for path in left)
    assert bool(left) == (step == 8)
    assert not any(thread.name == "cvkit-save" for thread in threading.enumerate())


def test_a_run_that_fails_waits_for_its_file(tmp_path):
    class Fails(Callback):
        def on_batch_start(self, state):
            if state.step == 3:
                raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        train(tmp_path, Fails(), background=True)
    assert load_checkpoint(tmp_path / "last.pt")["training"]["step"] == 3
    assert not any(thread.name == "cvkit-save" for thread in threading.enumerate())

"""Writing a checkpoint, broken at every call that touches the disk: there is always a sound file, the old or the new one."""

import builtins
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import cvkit
from cvkit.callbacks import Checkpoint
from cvkit.errors import CheckpointError
from cvkit.serialization import checkpoint as checkpoint_
from cvkit.training import load_checkpoint, save_checkpoint

OLD = {"model": {"w": torch.arange(300.0)}, "training": {"step": 1, "history": [0.5, None]}}
# one tensor larger than Python's write buffer, so that the disk is reached while the archive is written
NEW = {"model": {"w": torch.arange(300.0) * 2, "big": torch.arange(9000.0)}, "training": {"step": 2, "history": []}}
KILLED = 77


class _File:
    """A file whose every call that reaches for the disk is a point where something can happen."""

    def __init__(self, file, reach: Callable[[str], None], role: str) -> None:
        self._file, self._reach, self._role = file, reach, role

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error) -> None:
        try:
            self._reach(f"close {self._role}")
        finally:
            self._file.close()

    def __getattr__(self, name):
        found = getattr(self._file, name)
        if name not in ("write", "read", "readinto", "seek", "flush", "truncate"):
            return found

        def reaching(*args):
            self._reach(f"{name} {self._role}")
            return found(*args)

        return reaching


@contextmanager
def disk(happens: Callable[[str, int], None]) -> Iterator[list[str]]:
    """Calls ``happens(name, index)`` before every call of ``save_checkpoint`` to the disk; gives the names so far."""
    seen: list[str] = []

    def reach(name: str) -> None:
        seen.append(name)
        happens(name, len(seen) - 1)

    def through(name: str, real: Callable) -> Callable:
        def call(*args, **kwargs):
            reach(name)
            return real(*args, **kwargs)

        return call

    def opening(path, mode="r", *args, **kwargs):
        role = "temporary" if "x" in mode or "w" in mode else "what is verified"
        reach(f"open {role}")
        return _File(builtins.open(path, mode, *args, **kwargs), reach, role)

    fsync = os.fsync

    def syncing(fd: int) -> None:
        reach("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync temporary")
        fsync(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_, "open", opening, raising=False)
        patch.setattr(os, "fsync", syncing)
        for name in ("replace", "open"):
            patch.setattr(os, name, through({"open": "open directory"}.get(name, name), getattr(os, name)))
        for name in ("mkdir", "stat"):
            patch.setattr(Path, name, through(name, getattr(Path, name)))
        yield seen


def _points(tmp: Path) -> list[str]:
    """Returns the name of every call to the disk that one undisturbed save makes."""
    path = tmp / "counted" / "last.pt"
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, OLD)
    with disk(lambda name, index: None) as seen:
        save_checkpoint(path, NEW)
    return seen


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> list[str]:
    return _points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of the old and of the new file, written without a fault."""
    root = tmp_path_factory.mktemp("whole")
    return {
        "old": save_checkpoint(root / "old.pt", OLD).read_bytes(),
        "new": save_checkpoint(root / "new.pt", NEW).read_bytes(),
    }


def _fresh(directory: Path, before: bool, whole: dict[str, bytes]) -> Path:
    directory.mkdir()
    path = directory / "last.pt"
    if before:
        path.write_bytes(whole["old"])
    return path


def test_the_points_cover_every_kind_of_call_and_are_the_same_each_time(tmp_path, points):
    assert points == _points(tmp_path)
    kinds = ["open temporary", "write temporary", "flush temporary", "fsync temporary", "close temporary"]
    kinds += ["open what is verified", "read what is verified", "close what is verified"]
    kinds += ["replace", "open directory", "fsync directory"]
    firsts = [points.index(kind) for kind in kinds]
    assert firsts == sorted(firsts)  # each is there, in this order
    assert points.count("write temporary") > 10
    assert max(i for i, p in enumerate(points) if "temporary" in p) < points.index("open what is verified")
    assert points.count("replace") == 1
    assert points.count("fsync directory") == 1


@pytest.mark.parametrize("before", [True, False], ids=["an old file", "no old file"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_an_error_at_any_call_surfaces_and_leaves_the_old_file_or_the_new_one(tmp_path, points, whole, number, before):
    for at, name in enumerate(points):
        path = _fresh(tmp_path / str(at), before, whole)

        def fail(_: str, index: int, at: int = at) -> None:
            if index == at:
                raise OSError(number, os.strerror(number))

        with disk(fail) as seen, pytest.raises(CheckpointError) as caught:
            save_checkpoint(path, NEW)
        assert seen[: at + 1] == points[: at + 1]
        left = [p.name for p in path.parent.iterdir()]
        replaced = at > points.index("replace")
        if replaced:
            stands = "the new file is under its name, but might not survive a power cut"
        else:
            stands = "the file before it is untouched" if before else "the file before it is not there"
        assert left == (["last.pt"] if before or replaced else []), name
        if left:
            assert path.read_bytes() == whole["new" if replaced else "old"], name
            assert load_checkpoint(path)["training"] == (NEW if replaced else OLD)["training"]
        assert str(caught.value) == (
            f"cannot write the checkpoint {path}\n"
            f"  got: OSError: [Errno {number}] {os.strerror(number)}\n"
            f"  expected: a directory that takes it; {stands}\n"
            "  fix: see whether the disk is full or the directory is read-only"
        ), name
        assert isinstance(caught.value.__cause__, OSError)
        assert save_checkpoint(path, NEW).read_bytes() == whole["new"]  # and the next save works


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError], ids=lambda error: error.__name__)
def test_an_interrupt_at_any_call_passes_through_and_leaves_no_temporary(tmp_path, points, whole, error):
    for at, name in enumerate(points):
        path = _fresh(tmp_path / str(at), True, whole)

        def interrupt(_: str, index: int, at: int = at) -> None:
            if index == at:
                raise error

        with disk(interrupt), pytest.raises(error):
            save_checkpoint(path, NEW)
        assert [p.name for p in path.parent.iterdir()] == ["last.pt"], name
        assert path.read_bytes() in (whole["old"], whole["new"]), name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("before", [True, False], ids=["an old file", "no old file"])
def test_a_kill_at_any_call_leaves_the_old_file_or_the_new_one(tmp_path, points, whole, before):
    litter = 0
    for at, name in enumerate(points):
        path = _fresh(tmp_path / str(at), before, whole)

        def die(_: str, index: int, at: int = at) -> None:
            if index == at:
                os._exit(KILLED)  # nothing is flushed, closed or cleared away

        child = os.fork()
        if child == 0:
            try:
                with disk(die):
                    save_checkpoint(path, NEW)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED, name
        replaced = at > points.index("replace")
        if replaced or before:
            assert path.read_bytes() == whole["new" if replaced else "old"], name
            load_checkpoint(path)
        left = [p for p in path.parent.iterdir() if p != path]
        assert len(left) <= 1, name
        litter += len(left)
        # a half-written file is none of those that a run continues from
        assert Checkpoint(path.parent, monitor=None).checkpoints() == ([path] if replaced or before else []), name
    assert litter > 10


def _fit(directory: Path, epochs: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    data = [(torch.randn(4, 4), torch.randint(2, (4,))) for _ in range(2)]
    keeper = Checkpoint(directory, monitor=None)
    cvkit.fit(model, data, epochs=epochs, callbacks=[keeper], progress=False, device="cpu", seed=0, resume=True)


def test_what_a_kill_left_is_cleared_away_by_the_next_run_and_nothing_else(tmp_path, whole):
    _fit(tmp_path, 1)
    for name in ("last.pt", "best.pt", "step-00000002.pt"):
        (tmp_path / f".{name}.0123abcd.tmp").write_bytes(whole["new"][:5000])
    kept = ["notes.tmp", ".hidden", "model.pt.tmp"]
    for name in kept:
        (tmp_path / name).write_text("the user's own")
    _fit(tmp_path, 2)
    assert load_checkpoint(tmp_path / "last.pt")["training"]["epoch"] == 2
    assert list(tmp_path.glob(".*.pt.*.tmp")) == []
    assert all((tmp_path / name).read_text() == "the user's own" for name in kept)


def test_a_temporary_that_cannot_be_removed_does_not_hide_why_the_save_failed(tmp_path, whole, monkeypatch):
    path = _fresh(tmp_path / "a", True, whole)

    def stuck(self, missing_ok=False):
        raise PermissionError(errno.EACCES, "Permission denied")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "unlink", stuck)
    with pytest.raises(CheckpointError, match=r"\n  got: OSError: \[Errno 28\] No space left on device\n"):
        save_checkpoint(path, NEW)
    assert path.read_bytes() == whole["old"]


def test_a_file_in_place_of_the_directory_is_refused_by_name(tmp_path):
    (tmp_path / "runs").write_text("a file")
    path = tmp_path / "runs" / "last.pt"
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, NEW)
    assert str(caught.value).startswith(f"cannot write the checkpoint {path}\n  got: FileExistsError: ")
    assert "the file before it is not there" in str(caught.value)
    assert (tmp_path / "runs").read_text() == "a file"


def test_bytes_that_the_disk_lost_are_told_of_under_the_name_that_was_asked_for(tmp_path, whole):
    path = _fresh(tmp_path / "a", True, whole)

    def spoil(name: str, index: int) -> None:
        if name == "open what is verified":
            (temporary,) = (p for p in path.parent.iterdir() if p != path)
            data = bytearray(temporary.read_bytes())
            data[1000] ^= 1
            temporary.write_bytes(data)

    with disk(spoil), pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, NEW)
    assert str(caught.value) == (
        f"cannot write the checkpoint {path}\n"
        "  got: other bytes read back than were written\n"
        "  expected: a directory that takes it; the file before it is untouched\n"
        "  fix: check the disk; nothing more should be written to it until then"
    )
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]
    assert path.read_bytes() == whole["old"]


def test_a_run_whose_disk_fills_up_says_so_and_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    real, saves = os.fsync, []

    def full(fd: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            saves.append(fd)
            if len(saves) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=f"^cannot write the checkpoint {tmp_path / 'last.pt'}\n"):
        _fit(tmp_path, 3)
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".pt", ".tmp")] == ["last.pt"]
    assert load_checkpoint(tmp_path / "last.pt")["training"]["epoch"] == 1

"""One file: atomic, checksummed, free of code, versioned.

A checkpoint is what ``torch.save`` writes (a zip archive of tensors and plain types), followed by its own SHA-256 in the
archive's comment. So ``torch.load(path, weights_only=True)`` reads it without cvkit, and cvkit reads no byte of it before the
digest has been verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from cvkit.errors import CheckpointError
from cvkit.serialization import archive

__all__ = ["load_checkpoint", "place", "plain", "save_checkpoint"]


def plain(content: Any, where: str = "content") -> Any:
    """Returns content as tensors and plain types only.

    Args:
        content: Nested dicts, lists and tuples of tensors, numbers, strings, bytes, booleans and
            ``None``.
        where: Where the content stands, for the message.

    Raises:
        CheckpointError: Something else, named by its key.
    """
    if content is None or type(content) in (bool, int, float, str, bytes):
        _check_readable(content, where)
        return content
    if isinstance(content, Tensor):
        return _plain_tensor(content, where)
    if isinstance(content, Mapping):
        for key in content:
            if type(key) not in (str, int):
                raise _not_plain(f"{where}: the key {key!r}", key)
        return {key: plain(value, f"{where}[{key!r}]") for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(plain(value, f"{where}[{index}]") for index, value in enumerate(content))
    raise _not_plain(where, content)


def _plain_tensor(tensor: Tensor, where: str) -> Tensor:
    """Returns a tensor detached and of no subclass; a subclass would be written but not be read back."""
    wraps = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__  # its values are in other tensors
    empty = is_lazy(tensor) or (tensor.is_meta and not wraps)
    if empty or wraps or tensor.is_nested:
        what = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
        raise CheckpointError(
            f"{where} cannot go into a checkpoint",
            got=f"no values: {what}" if empty else f"values in other tensors: {what}",
            expected="tensors that hold their own values",
            fix="run one batch through a lazy model first" if empty else "take it apart into plain tensors",
        )
    tensor = tensor.detach()
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _check_readable(value: object, where: str) -> None:
    """Refuses what could be written but not be read back with ``weights_only=True``."""
    empty = value == b"" and isinstance(value, bytes)
    if empty or (isinstance(value, int) and value.bit_length() > 2_000):
        raise CheckpointError(
            f"{where} cannot be read back from a checkpoint",
            got="empty bytes" if empty else f"an integer of {value.bit_length()} bits",  # type: ignore[attr-defined]
            expected="bytes of at least one, integers of at most 2,000 bits",
            fix="store None, or a string",
        )


def _not_plain(where: str, value: object) -> CheckpointError:
    return CheckpointError(
        f"{where} cannot go into a checkpoint",
        got=f"{type(value).__module__}.{type(value).__qualname__}",
        expected="nested dicts (keys str or int), lists and tuples of tensors, numbers, strings, bytes, booleans and None",
        fix="store what it is made of: str(path), array.tolist(), torch.from_numpy(array)",
    )


class _Hashing:
    """A file to write to that also feeds a hash, and remembers what it could not do."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        self.digest.update(data)
        try:
            return self.file.write(data)
        except BaseException as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Writes a checkpoint so that the file under ``path`` is always whole: the old one or the new one.

    It is written under a temporary name beside it, flushed to the disk, read back and verified, renamed, and the rename
    flushed as well.

    Args:
        path: The file's name; its directory is made if missing.
        content: Nested dicts, lists and tuples of tensors and plain types.

    Returns:
        The path.

    Raises:
        CheckpointError: Content that is neither tensor nor plain type (named by its key), or a disk that does not take
            it (the old file is left as it was).
    """
    checked = plain(content)
    return place(Path(path), lambda temporary: _write(temporary, checked), _verify)


def place(path: Path, write: Callable[[Path], None], verify: Callable[[Path], None], what: str = "checkpoint") -> Path:
    """Puts a file in the place of an older one, if there is one, once it is whole on the disk.

    Args:
        path: The file's name; its directory is made if missing.
        write: Writes the file under the name that it gets, flushed to the disk.
        verify: Reads the file back and raises ``CheckpointError`` where it is not what was written.
        what: What the file is, for messages.

    Raises:
        CheckpointError: A disk that does not take it.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    stands = f"the file before it is {'untouched' if os.path.exists(path) else 'not there'}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            try:
                verify(temporary)
            except CheckpointError as error:
                raise _changed(path, what, stands) from error
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # what failed first is what is told
                temporary.unlink(missing_ok=True)
            raise
        stands = "the new file is under its name, but might not survive a power cut"
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot write the {what} {path}",
            got=f"{type(error).__name__}: {error}",
            expected=f"a directory that takes it; {stands}",
            fix="see whether the disk is full or the directory is read-only",
        ) from error
    return path


def _write(temporary: Path, content: Any) -> None:
    with open(temporary, "xb") as file:
        hashing = _Hashing(file)
        try:
            torch.save(content, hashing)  # type: ignore[arg-type]
        finally:
            if hashing.error is not None:  # of which torch's writer says "unexpected pos" instead
                raise hashing.error
        file.seek(-2, os.SEEK_END)  # the length of the archive's comment, 0 until now, ends the file
        file.write(archive.COMMENT.to_bytes(2, "little") + archive.MAGIC + hashing.digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())


def _changed(path: Path, what: str, stands: str) -> CheckpointError:
    return CheckpointError(
        f"cannot write the {what} {path}",
        got="other bytes read back than were written",
        expected=f"a directory that takes it; {stands}",
        fix="check the disk; nothing more should be written to it until then",
    )


def sync_directory(directory: Path) -> None:
    """Flushes a directory's entries to the disk, where the system can."""
    if os.name == "nt":  # Windows cannot open a directory for that
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads a checkpoint back, verified.

    Nothing in the file is run: its checksum is verified first, and then it is read with ``weights_only=True``.

    Args:
        path: A file that :func:`save_checkpoint` wrote.
        map_location: The device that its tensors go to.

    Returns:
        The content; a model's weights are under ``["model"]``.

    Raises:
        CheckpointError: Missing, damaged, no checkpoint of cvkit's, or of a newer format; the file is named.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:  # once: what is verified is what is read, whatever happens to the name
            _compare(file, path)
            if excess := archive.excess(file, os.fstat(file.fileno()).st_size):
                raise _unreadable(path, excess)
            file.seek(0)
            content = torch.load(file, map_location=map_location, weights_only=True, mmap=False)
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.pt")) if path.parent.is_dir() else []
        raise CheckpointError(
            f"there is no checkpoint {path}",
            got=f"beside it: {', '.join(there)}" if there else f"no .pt file in {path.parent}",
            expected="a file that a Checkpoint callback or save_checkpoint wrote",
            fix="check the path",
        ) from None
    except IsADirectoryError:
        there = sorted(p.name for p in path.glob("*.pt"))
        raise CheckpointError(
            f"cannot read the checkpoint {path}",
            got="a directory" + (f" with {', '.join(there)}" if there else ""),
            expected="a file",
            fix=f"pass {str(path / there[0])!r}" if there else "pass the file that a Checkpoint callback wrote",
        ) from None
    except CheckpointError:
        raise
    # a pickle made to do harm makes the reader raise whatever it stumbles over
    except Exception as error:
        raise _unreadable(path, archive.reason(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no checkpoint", got=type(content).__name__, expected="a dict")
    return content


def _unreadable(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        f"cannot read the checkpoint {path}",
        got=got,
        expected="tensors and plain types, as save_checkpoint writes them",
        fix="use another checkpoint of the run, and do not trust this one if it comes from elsewhere",
    )


def _verify(path: Path) -> None:
    """Compares a file with the digest in its last bytes.

    Raises:
        CheckpointError: Not written by cvkit, cut off, or changed since.
    """
    with open(path, "rb") as file:
        _compare(file, path)


def _compare(file: IO[bytes], path: Path) -> None:
    sealed = archive.seal(file)
    if sealed is None:
        got, fix = archive.foreign(path) or (
            f"{os.fstat(file.fileno()).st_size} bytes that do not end in a checksum",
            "use another checkpoint of the run; plain weights load with cvkit.load_weights(model, path)",
        )
        raise CheckpointError(
            f"{path} is no whole checkpoint of cvkit's",
            got=got,
            expected="a file written by a Checkpoint callback or save_checkpoint, complete to its last byte",
            fix=fix,
        )
    if not archive.intact(file, sealed):
        raise CheckpointError(
            f"the checkpoint {path} is damaged",
            got="bytes that do not fit its checksum",
            expected=f"SHA-256 {sealed}",
            fix="use another checkpoint of the run, or copy the file again from where it came",
        )

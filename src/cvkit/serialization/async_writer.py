"""Saving while the training goes on: a copy into buffers that are used again, and one thread that writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from cvkit import streams

__all__ = ["AsyncWriter", "Buffers"]


class Buffers:
    """Copies nested content to the host, into the same memory each time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def copy(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a copy of nested dicts, lists and tuples of tensors and plain types.

        It is good until the next call. A tensor that stands in several places is copied once, and stands there again. From a
        GPU the copies are queued, and this waits for them, not for work that is queued later.
        """
        seen: dict[tuple[Any, ...], Tensor] = {}
        made = self._copied(content, (), seen)
        for device in {device for device, *_ in seen}:
            streams.of(device).moment().wait()
        return dict(made)

    def _copied(self, value: Any, path: tuple[object, ...], seen: dict[tuple[Any, ...], Tensor]) -> Any:
        if isinstance(value, Tensor):
            same = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
            if value.numel() == 0 or same not in seen:
                seen[same] = self._filled(value.detach(), path)
            return seen[same]
        if isinstance(value, Mapping):
            return {key: self._copied(one, (*path, key), seen) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(one, (*path, index), seen) for index, one in enumerate(value))
        return value

    def _filled(self, value: Tensor, path: tuple[object, ...]) -> Tensor:
        buffer, queues = self._kept.get(path), streams.of(value.device)
        if buffer is None or (buffer.shape, buffer.stride(), buffer.dtype) != (
            value.shape,
            value.stride(),
            value.dtype,
        ):
            buffer = queues.buffer(value)
            if buffer.stride() != value.stride():  # a view with gaps; its copy has none
                self._kept.pop(path, None)
                return buffer.copy_(value)
            self._kept[path] = buffer
        return queues.fetch(value, buffer)


class AsyncWriter:
    """Runs one job at a time in a thread, and hands on what went wrong at the next occasion."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], object]) -> None:
        """Starts a job, once the one before is done.

        Raises:
            BaseException: What the job before has raised; this one is then not started.
        """
        self.wait()
        # no daemon: a script that ends lets the file be finished
        self._thread = threading.Thread(target=self._run, args=(job,), name="cvkit-save")
        self._thread.start()

    def wait(self) -> None:
        """Waits for the job under way.

        Raises:
            BaseException: What it has raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # raised by the thread that asked, at its next call
            self._error = error

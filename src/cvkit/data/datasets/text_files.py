"""Files that hold labels as text: read in the encoding that they are in, or refused by name."""

from __future__ import annotations

import codecs
from pathlib import Path

from cvkit.errors import ArgumentError, DataError

__all__ = ["check_encoding", "read_text"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, which say what the rest is."""

_LIKELY = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1252")
"""What label files are in that are no UTF-8: GBK is a part of GB18030."""


def check_encoding(encoding: str | None) -> None:
    """Refuses what is no name of a text encoding.

    Raises:
        ArgumentError: It is none.
    """
    try:
        if encoding is not None:
            "".encode(encoding)  # an encoding of bytes, such as hex, is refused here too
    except (LookupError, TypeError, ValueError) as error:
        raise ArgumentError(
            "encoding cannot be used",
            got=f"{encoding!r}: {error}",
            expected='the name of a text encoding, e.g. "utf-8", "gbk" or "utf-16"',
            fix="leave it out for UTF-8",
        ) from error


def read_text(path: Path, encoding: str | None, *, what: str, holds: str, fix: str) -> str:
    """Returns the text of a file, each line ending in one line feed.

    A byte order mark says what the file is; without one it is UTF-8, unless ``encoding`` says otherwise. Nothing is guessed:
    the bytes of GBK and of others that came before UTF-8 look alike.

    Args:
        path: The file.
        encoding: What the file is in; ``None`` for UTF-8, or what its mark says.
        what: What to call the file in a message, e.g. ``"the table"``.
        holds: What it is expected to be.
        fix: What to do where it cannot be opened.

    Raises:
        DataError: It cannot be read, is in another encoding, or its mark says another than ``encoding``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{what} {path} cannot be read", got=f"{type(error).__name__}: {error}", expected=holds, fix=fix
        ) from error
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if marked is not None and encoding is not None and not _same(marked, encoding):
        raise DataError(
            f"{what} {path} is not in {encoding}",
            got=f"a byte order mark of {marked.removesuffix('-sig').upper()}",
            expected=f"text in {encoding}",
            fix="leave encoding out: the mark says what the file is",
        )
    try:
        text = data.decode(marked or encoding or "utf-8")
    except UnicodeError as error:
        raise _undecodable(path, data, marked or encoding, error, what, holds) from error
    if "\0" in text:
        raise _zeros(path, data, what, holds)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _same(marked: str, encoding: str) -> bool:
    """Whether an encoding that was asked for is the one of a mark."""
    family = {"utf-8-sig": "utf-8"}.get(marked, marked)
    return codecs.lookup(encoding).name.startswith(family)


def _undecodable(
    path: Path, data: bytes, encoding: str | None, error: UnicodeError, what: str, holds: str
) -> DataError:
    if encoding is not None:
        fix = "pass the encoding that it is in, or save it as UTF-8"
    else:
        shown = [f"{name} ({_preview(data, name)!r})" for name in _LIKELY if _preview(data, name) is not None]
        fix = (
            f"pass encoding=… with the one in which it reads right: {', '.join(shown)}; or save it as UTF-8"
            if shown
            else "save it as UTF-8, or pass encoding=…"
        )
    return DataError(f"{what} {path} is not in {encoding or 'UTF-8'}", got=str(error), expected=holds, fix=fix)


def _preview(data: bytes, encoding: str) -> str | None:
    """Returns the first word of a file that is no ASCII, as an encoding has it; ``None`` where the file is not in it."""
    try:
        text = data.decode(encoding)
    except UnicodeError:
        return None
    words = (word for line in text.splitlines() for word in line.replace(",", " ").replace(";", " ").split())
    return next((word[:20] for word in words if not word.isascii()), None)


def _zeros(path: Path, data: bytes, what: str, holds: str) -> DataError:
    likely = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be" if data[:1] == b"\0" else None
    return DataError(
        f"{what} {path} is no text as it stands",
        got="characters of number zero" + (", as UTF-16 without a byte order mark has them" if likely else ""),
        expected=holds,
        fix=f'pass encoding="{likely}"' if likely else "save it as UTF-8",
    )

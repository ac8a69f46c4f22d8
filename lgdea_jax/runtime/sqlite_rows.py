"""Rows that a damaged SQLite file still holds, read page by page, whatever has become of its tree.

SQLite itself gives up at the first page that it cannot follow, and ends a write-ahead log in silence at the first frame
whose checksum is wrong. Here every page is read for itself (https://www.sqlite.org/fileformat2.html). Rows may come in
several versions, deleted and half-overwritten ones too: each needs a checksum of its own in a column, which the caller
compares. Only tables WITHOUT ROWID, at the page size that `PAGE` states, in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

PAGE = 4096  # SQLite's default: the header that states it may be what is damaged.
_LOG_HEADER, _FRAME_HEADER = 32, 24
_LEAF, _INTERIOR = 8, 12  # Bytes of a page's header.
_MOST, _LEAST = (PAGE - 12) * 64 // 255 - 23, (PAGE - 12) * 32 // 255 - 23  # Of a payload in its page.


def rows(path: Path, widths: Collection[int]) -> Iterator[tuple[Any, ...]]:
    """Everything that looks like a row of one of the numbers of columns `widths`, in the file and in its log."""
    data = path.read_bytes()
    pages = {number + 1: data[number * PAGE:(number + 1) * PAGE] for number in range(-(-len(data) // PAGE))}
    yield from _all(pages, pages, widths)
    log = _log_pages(path)
    newer: dict[int, bytes] = pages.copy()
    newer.update(log)  # The last version of each; what comes from the log may point into either.
    for number, page in log:
        yield from _all({number: page}, newer, widths)


def log_is_whole(path: Path, frames: int) -> bool:
    """Whether SQLite takes all transactions that are in the log of the database at `path`.

    It ends the log in silence at a frame that is wrong, as it must after a power cut. Only the log is opened here: to
    close the database, or the log's index, would give up the locks that SQLite holds in this process.

    Args:
      frames: of the log that SQLite takes, the second number of `PRAGMA wal_checkpoint(PASSIVE)`.
    """
    log = path.with_name(f"{path.name}-wal")
    if not log.is_file():
        return True
    count, last = (log.stat().st_size - _LOG_HEADER) // (_FRAME_HEADER + PAGE), 0
    with open(log, "rb") as file:
        header = file.read(_LOG_HEADER)
        order = {0x377F0682: "<", 0x377F0683: ">"}.get(int.from_bytes(header[:4], "big"))
        if count > 0 and (order is None or _checksum(header[:24], order) != struct.unpack(">2I", header[24:])):
            return False
        for number in range(count):
            file.seek(_LOG_HEADER + number * (_FRAME_HEADER + PAGE))
            head = file.read(_FRAME_HEADER)
            if any(head[4:8]) and head[8:16] == header[16:24]:  # Ends a transaction, in this round of the log.
                last = number + 1
    return last <= frames


def _checksum(data: bytes, order: str) -> tuple[int, int]:
    a = b = 0
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        a = (a + first + b) & 0xFFFFFFFF
        b = (b + second + a) & 0xFFFFFFFF
    return a, b


def _log_pages(path: Path) -> list[tuple[int, bytes]]:
    """(page number, page) of every frame of the log, also of damaged ones."""
    log = path.with_name(f"{path.name}-wal")
    data = log.read_bytes() if log.is_file() else b""
    return [(int.from_bytes(data[start:start + 4], "big"), data[start + _FRAME_HEADER:start + _FRAME_HEADER + PAGE])
            for start in range(_LOG_HEADER, len(data), _FRAME_HEADER + PAGE)]


def _all(of: dict[int, bytes], pages: dict[int, bytes], widths: Collection[int]) -> Iterator[tuple[Any, ...]]:
    for page in of.values():
        for header in (_LEAF, _INTERIOR):  # Whatever the byte for it says.
            for start in _cells(page, header):
                row = _row(page, start + (4 if header == _INTERIOR else 0), pages, widths)
                if row is not None:
                    yield row


def _cells(page: bytes, header: int) -> Iterator[int]:
    """Where cells begin: by the pointers after the header, as many as it states, and on where it may be wrong."""
    stated, first = int.from_bytes(page[3:5], "big"), len(page)
    for number in range((PAGE - header) // 2):
        at = header + 2 * number
        start = int.from_bytes(page[at:at + 2], "big")
        if at >= first or (not start and number >= stated):
            return
        if header + 2 <= start < len(page) - 2:
            first = min(first, start)
            yield start


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[at + count]
        if count == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 127
        if byte < 128:
            return value, at + count + 1
    raise AssertionError


def _row(page: bytes, start: int, pages: dict[int, bytes], widths: Collection[int]) -> tuple[Any, ...] | None:
    """The row of the cell at `start`; None where it is none."""
    try:
        size, at = _varint(page, start)
        local = size
        if size > _MOST:
            local = _LEAST + (size - _LEAST) % (PAGE - 4)
            local = local if local <= _MOST else _LEAST
        if size > len(pages) * PAGE:
            return None
        payload = page[at:at + local]
        following = int.from_bytes(page[at + local:at + local + 4], "big") if size > local else 0
        while len(payload) < size:
            more = pages[following]
            payload += more[4:4 + size - len(payload)]
            following = int.from_bytes(more[:4], "big")
        return _values(payload, widths)
    except (IndexError, KeyError, struct.error):
        return None


def _values(payload: bytes, widths: Collection[int]) -> tuple[Any, ...] | None:
    """The columns of a record."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if at != end or len(kinds) not in widths:
        return None
    values: list[Any] = []
    for kind in kinds:
        size = (kind - 12) // 2 if kind >= 12 else (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind]
        part, at = payload[at:at + size], at + size
        if len(part) != size:
            return None
        if kind >= 12:
            values.append(part.decode("utf-8", "surrogateescape") if kind % 2 else part)
        elif kind == 7:
            values.append(struct.unpack(">d", part)[0])
        elif kind in (8, 9):
            values.append(kind - 8)
        else:
            values.append(int.from_bytes(part, "big", signed=True) if kind else None)
    return tuple(values)

"""Writing files whole or not at all, whatever is killed when, and whoever else writes there.

What is written goes to a temporary name, is synced and renamed. Writers in one folder take turns by a lock on the
folder itself, which the system releases when its holder dies: so a temporary file that the holder of the lock finds is
left from a kill, and goes. Where there is no such lock, temporary names are unlike, and go after a day.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from impq_opt.errors import FileError

__all__ = ["alone", "atomic_write", "writing"]

_SUFFIX = ".impq-opt.tmp"
# Of writers that had no lock, here and in earlier releases.
_UNLIKE = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}(?:\.impq-opt)?\.tmp")
_A_DAY = 24 * 3600.0
# Seconds to wait for another writer; one that has stopped for good stops nobody else.
_PATIENCE = 10.0


def atomic_write(path: str | os.PathLike[str], data: bytes | memoryview | Iterable[bytes | memoryview]) -> None:
    """Write ``data`` to ``path`` whole or not at all; what was there before stays until the new file is on the disk.

    Data that come piece by piece are written as they come; where making one fails nothing has changed.

    Raises
    ------
    FileError
        With the reason where the file cannot be written; then nothing has changed.
    """
    target = Path(os.path.realpath(path))
    pieces = (data,) if isinstance(data, (bytes, memoryview)) else data
    if os.path.exists(target) and not os.path.isfile(target):
        if os.path.isdir(target):
            raise FileError("is a folder, not a file", where=str(path))
        with writing(path), target.open("wb") as file:  # a pipe or a terminal: nothing can be renamed onto it
            file.writelines(pieces)
        return
    with writing(path), alone(target.parent) as locked:
        between = "" if locked else f".{os.getpid()}-{secrets.token_hex(4)}"
        temporary = target.with_name(f".{target.name}{between}{_SUFFIX}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Tell in one sentence why ``path`` cannot be written.

    Raises
    ------
    FileError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot be written: {error.strerror or error}",
            where=os.fspath(path),
            hint="is the folder there and writable?",
        ) from None


class _Held(threading.local):
    def __init__(self) -> None:
        self.folders: set[tuple[int, int]] = set()


_HELD = _Held()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Keep other writers out of ``folder`` meanwhile, and say whether that was to be had; clear what kills left."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # a system that opens no folders, or a folder that may not be read, or is not there
        yield False
        return
    try:
        status = os.fstat(descriptor)
        key = status.st_dev, status.st_ino
        if key in _HELD.folders:
            yield True
        elif not _lock(descriptor):
            yield False
        else:
            _HELD.folders.add(key)
            try:
                _sweep(folder)
                yield True
            finally:
                _HELD.folders.discard(key)
    finally:
        os.close(descriptor)  # and with it goes the lock


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on this system
        return False
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        except OSError:  # a file system without locks
            return False


def _sweep(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            unlike = _UNLIKE.fullmatch(entry.name)
            if not unlike and not (entry.name.startswith(".") and entry.name.endswith(_SUFFIX)):
                continue
            with contextlib.suppress(OSError):
                if not unlike or time.time() - entry.stat(follow_symlinks=False).st_mtime > _A_DAY:
                    os.unlink(entry.path)  # noqa: PTH108 - an entry is not yet a path


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every system can sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

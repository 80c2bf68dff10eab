"""Locks between processes: files that the system frees when their holder ends, however it ends."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeops.progress import say

_SECONDS_BETWEEN_TRIES = 0.5
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that have none."""


@contextmanager
def alone(path: Path, what: str) -> Iterator[bool]:
    """Hold a lock, so that of several processes one at a time does the same; the others wait and say so.

    A job whose Snakemake was killed goes on without it, and the next Snakemake starts the job again.

    Args:
        path: the lock file; it is removed at the end.
        what: the holder does, in words.

    Yields:
        Whether another one was waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    waited = False
    while (file := locked(path)) is None:
        if not waited:
            say(f"waiting: process {_holder(path)} {what}; was its Snakemake killed? Best let it end")
            waited = True
        time.sleep(_SECONDS_BETWEEN_TRIES)
    with file:
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield waited
        finally:
            path.unlink(missing_ok=True)


def locked(path: Path) -> IO[str] | None:
    """The open file with its lock, or None where another process has it. Some file systems have no locks."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return file
            file.close()
            if error.errno != errno.EWOULDBLOCK:
                raise
            return None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # its last holder has removed it


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "?"
    except FileNotFoundError:  # just freed
        return "?"

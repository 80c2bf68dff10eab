"""The one exception that a user is meant to read, and the one place where a program ends with its line."""

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

_MOST_SAID = 260
"""Characters of a path: no file name is longer than 255."""
_PERMISSIONS = "change its permissions, or name another"
_REMEDIES: Mapping[int, str] = {
    errno.ENOENT: "name one that exists",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a part of it is a file; name another",
    errno.EEXIST: "delete it, or name another",
    errno.ENOTEMPTY: "empty it, or name another",
    errno.EROFS: "name a place that can be written to",
    errno.ENAMETOOLONG: "shorten it",
    errno.ELOOP: "its links lead in a circle; name another",
    errno.ENOSPC: "free some and run again",
    errno.EDQUOT: "free some and run again",
    errno.EFBIG: "raise the limit (ulimit -f) and run again",
    errno.ENOMEM: "free some and run again",
    errno.EMFILE: "raise the limit (ulimit -n) and run again",
    errno.EIO: "the disk fails; name a place on another",
}


_DISK = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk says that fails or is full, or a system that lets no file be so large."""
_REFUSED = (*_DISK, errno.EACCES, errno.EPERM, errno.EROFS)
"""And what a system says that lets nobody write."""
_RUST = re.compile(r"\(os error (\d+)\)(?: at path \"([^\"]*)\")?")
"""How libraries written in Rust give the system's number, and the file."""


class PipeOpsError(Exception):
    """Bad input. The message is one line: what is wrong, where (key, file or value), and the remedy.

    The command line prints it without a traceback and exits with status 1.
    """


class Terminated(SystemExit):
    """The process was asked to end, by SIGTERM. Libraries that catch every error let it pass."""

    STATUS = 128 + signal.SIGTERM

    def __init__(self, saved: str) -> None:
        super().__init__(self.STATUS)
        self.saved = saved
        """What is saved, and how to go on."""


def of_system(error: OSError, path: str | os.PathLike[str] | None = None) -> PipeOpsError | None:
    """What the system says of a file, with a remedy; None where it is nothing that a user can cause.

    Args:
        error: what it said.
        path: of the file; None: the one that the error names.
    """
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    named = error.filename if path is None else path
    name = os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else ""
    where = f"{name if len(name) <= _MOST_SAID else f'{name[:_MOST_SAID]}...'}: " if name else ""
    return PipeOpsError(f"{where}{os.strerror(error.errno or 0).lower()}; {remedy}")


@contextmanager
def errors_in_one_line(log: Path | None = None) -> Iterator[None]:
    """End the program with one line, in ``log`` too, and status 1, where input is bad or a file unusable.

    Every command and every script of the workflow runs within it. What else is raised is a mistake of ours,
    and keeps its traceback.
    """
    try:
        yield
    except Terminated as asked:
        print(f"terminated: {asked.saved}", file=sys.stderr)
        raise
    except Exception as error:
        said = _line(error)
        if said is None:
            raise
        if log is not None:
            with suppress(OSError):  # the disk may be full
                log.write_text(f"error: {said}\n")
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)


def _line(error: Exception) -> PipeOpsError | str | None:
    if isinstance(error, PipeOpsError):
        return error
    if isinstance(error, OSError):
        return of_system(error)
    if isinstance(error, MemoryError):
        return "out of memory; lower batch_size, max_length or the number of examples"
    failed = _of_the_disk(error)
    return of_system(failed) if failed else None


def _of_the_disk(error: BaseException) -> OSError | None:
    """The failure of a disk that a library wraps into an error of its own, or stumbles over."""
    if isinstance(error, OSError) and error.errno in _DISK:
        return error
    if (found := _RUST.search(str(error))) and int(found[1]) in _REFUSED:
        return OSError(int(found[1]), found[0], found[2])
    before = error.__cause__ or error.__context__
    return _of_the_disk(before) if before else None

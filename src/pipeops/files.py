"""Writing files so that a reader never sees half of one."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from pipeops.errors import PipeOpsError

FULL = 2**22
"""A disk with fewer bytes free than this is full."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is renamed to ``path``, on failure removed.

    The bytes are on the disk before the name is, and the name before this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(within: Path) -> Iterator[Path]:
    """Yield an empty folder within another, from which files can be moved up; it is removed at the end."""
    folder = temporary_beside(within / "files")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_beside(path: Path) -> Path:
    """A name beside ``path`` that only this process uses; what killed ones left under theirs is removed."""
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        pid = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if pid.isdecimal() and not _is_running(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do this for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def disk_full_in_one_line(folder: Path, *, advice: str = "free some and run again") -> Iterator[None]:
    """Say which disk is full. What was complete stays: files are written under other names and then moved.

    Args:
        folder: what is written, or where.
        advice: what to do about it.

    Raises:
        PipeOpsError: the disk was full.
    """
    try:
        yield
    except PipeOpsError:
        raise
    except Exception as error:  # every library has one of its own for this
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if "No space left" not in str(error) and free > FULL:
            raise
        raise PipeOpsError(
            f"no space left on the disk of {existing} ({free / 1e6:.0f} MB free); {advice}"
        ) from None


def make_shareable(path: Path) -> None:
    """Give a file the permissions of any new file; safetensors keeps its files from everybody else."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True

"""Writing files so that a reader never sees half of one."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from pipeops.errors import PipeOpsError, of_system

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
    """A name beside ``path`` that only this process uses; what killed ones left under theirs is removed.

    What has this process's own number is left too: in containers every program may be number 1.
    """
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        pid = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_running(int(pid))):
            with suppress(OSError):  # somebody else's, where only its owner may
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


class UnknownHome(PipeOpsError, ValueError):
    """A path begins with ``~`` and nobody's name."""


def expanded(path: str | Path) -> Path:
    """The path with ``~`` replaced by a home.

    Raises:
        UnknownHome: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UnknownHome(f"'{path}': there is no home of that user; write the path out") from None


def state_of(path: Path) -> tuple[int, ...]:
    """What tells a file from what it was before, or from another in its place; its size comes first."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


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
def writing(output: Path, *, folder: bool = False, inputs: Iterable[Path | None] = ()) -> Iterator[None]:
    """Refuse what cannot be written, before the work for it is done; then say it where a disk becomes full.

    Args:
        output: what will be written.
        folder: whether that is a folder.
        inputs: what is read, and must not be overwritten.

    Raises:
        PipeOpsError: see :func:`refuse_unwritable` and :func:`disk_full_in_one_line`.
    """
    refuse_unwritable(output, folder=folder, inputs=inputs)
    with disk_full_in_one_line(output):
        yield


def refuse_unwritable(output: Path, *, folder: bool = False, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse a file or folder that cannot be made or replaced; a file for a moment beside it tells.

    Args:
        output: what will be written.
        folder: whether that is a folder.
        inputs: what is read, and must not be overwritten.

    Raises:
        PipeOpsError: it is an input, its name has a line break, something else is there, or the system does
            not allow it.
    """
    refuse_unprintable(output)
    try:
        if output.exists() and any(path and path.exists() and path.samefile(output) for path in inputs):
            raise PipeOpsError(f"{output}: is an input, and would be overwritten; name another")
        # A device or a pipe would be replaced too.
        if output.exists() and not (output.is_dir() if folder else output.is_file()):
            raise PipeOpsError(f"{output}: is there and is no {'folder' if folder else 'file'}; name another")
        place = output if folder else output.parent
        place = next(path for path in (place, *place.parents) if path.exists())
        probe = temporary_beside(place / output.name)
        probe.touch()
        probe.unlink()
    except FileNotFoundError:  # as in /proc
        raise PipeOpsError(f"{output}: no file can be made there; name another place") from None
    except OSError as error:
        raise of_system(error, output) or error from None


def refuse_unprintable(path: Path) -> None:
    """Refuse a name that no line can hold, such as one with a line break.

    Raises:
        PipeOpsError: it is one.
    """
    if not str(path).isprintable():
        raise PipeOpsError(f"{str(path)!r}: a name with line breaks or control characters; name another")


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
        usage = shutil.disk_usage(existing)
        number = error.errno if isinstance(error, OSError) else None
        said = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        # Where the system names another reason it is that one; what is no disk, such as /proc, has no size.
        if not said and (number is not None or not usage.total or usage.free > FULL):
            raise
        raise PipeOpsError(
            f"no space left on the disk of {existing} ({usage.free / 1e6:.0f} MB free); {advice}"
        ) from None


def beside(output: Path) -> Path:
    """Where the JSON lies that says where a result comes from.

    Raises:
        PipeOpsError: the result has that name itself.
    """
    details = output.with_suffix(".json")
    if details == output:
        raise PipeOpsError(f"{output}: is where the JSON beside the result goes; name a .csv")
    return details


def make_shareable(path: Path) -> None:
    """Give a file the permissions of any new file; safetensors keeps its files from everybody else."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True

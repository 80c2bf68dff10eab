"""Writing files so that a reader never sees half of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeops.errors import PipeOpsError

FULL = 2**22
"""A disk with fewer bytes free than this is full."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is renamed to ``path``, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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

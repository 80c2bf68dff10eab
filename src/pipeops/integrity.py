"""Digests of what jobs write, checked where other jobs read it.

A folder's files have theirs in its ``SHA256SUMS``. A single file, and what is written along with it, have
them in ``{name}.sha256`` beside it. ``sha256sum --check`` reads both. A digest is no signature: it finds
damage, not malice.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from pipeops.errors import PipeOpsError
from pipeops.files import flush, make_shareable, replaced, state_of, temporary_folder
from pipeops.progress import say

SUMS, SUFFIX = "SHA256SUMS", ".sha256"
_UNSEALED: set[Path] = set()
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/]+)")


@contextmanager
def sealed(first: Path, *others: Path) -> Iterator[list[Path]]:
    """Yield temporary names for files of one folder; on success they are moved, and their digests written.

    A kill between two moves leaves files of two runs under one digest file, which readers refuse.
    """
    paths = [first, *others]
    with ExitStack() as moved:  # the other way round: digests last
        sums = moved.enter_context(replaced(sums_of(first)))
        temporaries = [moved.enter_context(replaced(path)) for path in reversed(paths)][::-1]
        yield temporaries
        _write(sums, zip(paths, temporaries, strict=True))


@contextmanager
def sealed_folder(output: Path, *, last: str, first: str | None = None) -> Iterator[Path]:
    """Yield a folder within ``output`` to write into; then its files move up with their digests.

    Args:
        output: the folder.
        last: the file that is moved last: where it is, the others are.
        first: the file that is moved first: where any is, it is.
    """
    with temporary_folder(output) as folder:
        yield folder
        for path in folder.iterdir():
            make_shareable(path)
        seal(folder)
        for path in sorted(
            folder.iterdir(), key=lambda path: (path.name == last, path.name != first, path.name)
        ):
            path.replace(output / path.name)
        flush(output)


def seal(folder: Path) -> None:
    """Write the digests of a folder's files, and have all of it on the disk."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    for path in files:
        flush(path)
    with replaced(folder / SUMS) as sums:
        _write(sums, zip(files, files, strict=True))


def verify(first: Path, *others: Path, again: str, sealed_with: Path | None = None) -> bool:
    """Compare files with their digests, once per process. One that is not there is left to its reader.

    Args:
        first: a file.
        others: more files of its folder.
        again: the remedy, such as ``delete it and price again``.
        sealed_with: the first of the files that they were written along with, as :func:`sealed` was told;
            None: ``first``.

    Returns:
        Whether all have a digest. A foreign model has none; nor has what an earlier version wrote.

    Raises:
        PipeOpsError: a file is not what was written.
    """
    found = [_verified(path, sealed_with or first, again) for path in (first, *others) if path.is_file()]
    return all(found)


def note_unsealed(path: Path) -> None:
    """Say of a file of ours that it has no digest; of several the first is named."""
    if not _UNSEALED:
        say(f"note: {path}: has no digest, as an earlier version wrote it; damage would not be seen")
    _UNSEALED.add(path)


def is_whole(folder: Path) -> bool:
    """Whether a folder was sealed and each of its files is what was written."""
    try:
        expected = _read(folder / SUMS, "")
        return all(digest(folder / name) == found for name, found in expected.items())
    except (PipeOpsError, OSError):
        return False


def sums_of(first: Path) -> Path:
    """Where the digests of files lie that :func:`sealed` wrote."""
    return first.with_name(first.name + SUFFIX)


def digest(path: Path) -> str:
    """SHA-256 of a file, computed once per process and state of the file.

    Raises:
        PipeOpsError: it is missing.
    """
    try:
        return _digest(path, *state_of(path))
    except FileNotFoundError:
        raise PipeOpsError(f"{path}: not found; run the workflow to make it") from None


@cache
def _digest(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(path: Path, sealed_with: Path, again: str) -> bool:
    of_file = sums_of(sealed_with)
    sums = next((s for s in (of_file, path.with_name(SUMS)) if s.exists()), None)
    digests = _read(sums, again) if sums else {}
    if sums == of_file and path.name not in digests:  # it names all that it was written along with
        raise PipeOpsError(f"{sums}: damaged; {_anew(again)}")
    if digests.get(path.name) not in (None, digest(path)):
        raise PipeOpsError(f"{path}: damaged, its bytes are not those that were written; {_anew(again)}")
    return path.name in digests


def _anew(again: str) -> str:
    return f"delete it and make it anew ({again})"


def _write(sums: Path, files: Iterable[tuple[Path, Path]]) -> None:
    """A line per file: its digest, and the name that it has or will have."""
    sums.write_text("".join(f"{digest(at)}  {path.name}\n" for path, at in files))


def _read(sums: Path, again: str) -> dict[str, str]:
    """Digests by name of the file."""
    text = sums.read_text(encoding="utf-8", errors="replace")
    lines = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    if not all(lines) or not lines:
        raise PipeOpsError(f"{sums}: damaged; {_anew(again)}")
    return {line[2]: line[1] for line in lines if line}

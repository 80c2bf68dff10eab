"""Reading files that may hold anything: what is wrong is one line that names the file and the remedy."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeops.errors import PipeOpsError, of_system
from pipeops.integrity import note_unsealed, verify
from pipeops.text import as_given, shortened

_MOST_SAID = 200
"""Characters of a library's message."""


@contextmanager
def reading(
    path: Path,
    *,
    again: str,
    absent: str = "name one that exists",
    wrong: str = "damaged",
    sealed_with: Path | None = None,
    ours: bool = False,
) -> Iterator[None]:
    """While open, nothing is done but to read one file and to make of its content what it should be.

    Where it has a digest it is compared with it before; see :mod:`pipeops.integrity`.

    Each library has errors of its own for what it cannot read, some raise nothing narrower than Exception,
    and what was read may lack any key or be of any type. So whatever is raised is said of the file.

    Args:
        path: the file.
        again: the remedy where it is not what it should be.
        absent: the remedy where it is not there.
        wrong: what to call it then.
        sealed_with: the first of the files that it was written along with; None: itself.
        ours: whether jobs of the workflow read it; then it is said where it has no digest.

    Raises:
        PipeOpsError: it cannot be read; or what was raised within.
    """
    try:
        if path.is_char_device():  # it may never end
            raise PipeOpsError(f"{path}: is a device; name a file")
        sealed = verify(path, again=again, sealed_with=sealed_with)
        yield
    except PipeOpsError:
        raise
    except FileNotFoundError:
        raise PipeOpsError(f"{path}: not found; {absent}") from None
    except Exception as error:
        of_file = of_system(error, path) if isinstance(error, OSError) else None
        raise of_file or PipeOpsError(f"{path}: {wrong} ({reason(error)}); {again}") from None
    if ours and not sealed:
        note_unsealed(path)


def reason(error: BaseException) -> str:
    """What a library says, shortened to one line; the kind of its error where it says nothing."""
    if isinstance(error, KeyError) and error.args and " " not in str(error.args[0]):
        return f"lacks {as_given(error.args[0])}"
    if isinstance(error, TypeError | AttributeError):  # the library's words are about our code
        return "of another form"
    return shortened(error, _MOST_SAID) or type(error).__name__


def read_json(path: Path, *, again: str, absent: str = "name one that exists") -> Any:
    """Read a JSON file; arguments and errors as of :func:`reading`."""
    with reading(path, again=again, absent=absent):
        return json.loads(path.read_text(encoding="utf-8"))

"""The one exception that a user is meant to read."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PipeOpsError(Exception):
    """Bad input. The message is one line: what is wrong, where (key, file or value), and the remedy.

    The command line prints it without a traceback and exits with status 1.
    """


@contextmanager
def errors_in_one_line(log: Path) -> Iterator[None]:
    """End the program with one line, in ``log`` too, where a :class:`PipeOpsError` is raised within."""
    try:
        yield
    except PipeOpsError as error:
        log.write_text(f"error: {error}\n")
        sys.exit(f"error: {error}")

"""The one exception that a user is meant to read."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def errors_in_one_line(log: Path) -> Iterator[None]:
    """End the program with one line, in ``log`` too, where a :class:`PipeOpsError` is raised within."""
    try:
        yield
    except PipeOpsError as error:
        log.write_text(f"error: {error}\n")
        sys.exit(f"error: {error}")

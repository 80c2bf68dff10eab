"""How far a long job is, on standard error: a bar on a terminal, a line now and then in a log.

Nothing runs in the background, so what is measured meanwhile is not disturbed.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds before anything is shown."""
LINE_EVERY = 60.0
"""Seconds between two lines in a log."""
REDRAW_EVERY = 0.1
"""Seconds between two drawings of a bar."""


class Progress:
    """Shows how much of something is done and how long the rest takes; see :func:`progress`."""

    def __init__(self, what: str, total: float, *, done: float = 0) -> None:
        """Begin.

        Args:
            what: what is going on, in a word or two.
            total: how much there is to do.
            done: how much of it was done before.
        """
        self.what, self.total, self.done = what, total, done
        self._done_before, self._begun = done, time.monotonic()
        self._shown = self._begun
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None

    def advance(self, by: float = 1) -> None:
        """So much more is done."""
        self.reach(self.done + by)

    def reach(self, done: float) -> None:
        """So much is done; of an estimated total at most all of it."""
        self.done = min(done, self.total)
        now = time.monotonic()
        waited = now - (self._begun if self._bar is None else self._shown)
        if self._terminal:
            if waited >= (PATIENCE if self._bar is None else REDRAW_EVERY):
                self._shown = now
                self._draw()
        elif now - self._shown >= LINE_EVERY:
            self._shown = now
            self.say(f"{self.what}: {self.done / self.total:.0%}, {self.left}")

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is None:
            say(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @property
    def left(self) -> str:
        """How long the rest takes at the mean rate so far, in words."""
        new = self.done - self._done_before
        if new <= 0:
            return "time left unknown"
        return f"{duration((time.monotonic() - self._begun) / new * (self.total - self.done))} left"

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self) -> None:
        # Imported by whoever waits already.
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bar

        state = {"completed": self.done, "description": self.what, "left": self.left}
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
            left = TextColumn("{task.fields[left]}")
            console = Console(stderr=True)
            self._bar = Bar(*columns, left, console=console, auto_refresh=False, transient=True)
            self._bar.add_task(total=self.total, **state)
            self._bar.start()
        else:
            self._bar.update(self._bar.task_ids[0], refresh=True, **state)


@contextmanager
def progress(what: str, total: float, *, done: float = 0) -> Iterator[Progress]:
    """Open a :class:`Progress`, and remove what it shows at the end. One at a time."""
    shown = Progress(what, total, done=done)
    try:
        yield shown
    finally:
        shown.close()


def tracked(
    items: Iterable[T], what: str, *, total: int, size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Pass items on, and show how much of ``total`` is done; ``size`` says how much an item is."""
    with progress(what, total) as shown:
        for item in items:
            yield item
            shown.advance(size(item))


def say(line: str) -> None:
    """Print a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words, to the two largest units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, seconds = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"

"""Progress goes to standard error: a bar on a terminal, few lines in a log, nothing for what is quick."""

import io
import re
from contextlib import contextmanager, redirect_stderr

import pytest

from pipeops import progress as module
from pipeops.progress import duration, progress, tracked


class Clock:
    """Time that passes where a test says so."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@contextmanager
def terminal(monkeypatch):
    """Standard error is a terminal; what it shows is the value."""
    for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with redirect_stderr(Terminal()) as stream:
        yield stream


def seen(stream):
    """The text without what moves the cursor or colours it."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", stream.getvalue())


def work(clock, *, items, seconds):
    for _ in tracked(range(items), "evaluate", total=items):
        clock.now += seconds


def test_a_log_gets_a_line_a_minute_with_the_time_left(clock, capsys):
    work(clock, items=10, seconds=35)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "evaluate: 20%, 4 min 40 s left",
        "evaluate: 40%, 3 min 30 s left",
        "evaluate: 60%, 2 min 20 s left",
        "evaluate: 80%, 1 min 10 s left",
        "evaluate: 100%, 0 s left",
    ]


def test_what_takes_less_than_a_minute_leaves_a_log_alone(clock, capsys):
    work(clock, items=59, seconds=1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_after_two_seconds_and_no_output(clock, monkeypatch, capsys):
    with terminal(monkeypatch) as stream:
        work(clock, items=4, seconds=1)
    text = seen(stream)
    assert re.search(r"evaluate .* 50% 2 s left", text)
    assert re.search(r"evaluate .* 75% 1 s left", text)
    assert "25%" not in text
    assert capsys.readouterr().out == ""


def test_what_is_quick_shows_nothing_on_a_terminal_either(clock, monkeypatch):
    with terminal(monkeypatch) as stream:
        work(clock, items=10, seconds=0.19)
    assert stream.getvalue() == ""


def test_a_bar_is_not_redrawn_at_every_step(clock, monkeypatch):
    with terminal(monkeypatch) as stream:
        work(clock, items=3000, seconds=0.001)
    assert 0 < seen(stream).count("left") < 15


def test_what_was_done_before_says_nothing_of_the_speed(clock, capsys):
    with progress("train", 100, done=50) as shown:
        assert shown.left == "time left unknown"
        clock.now += 60
        shown.reach(60)
    assert capsys.readouterr().err == "train: 60%, 4 min 0 s left\n"


def test_lines_are_said_in_a_log_and_above_a_bar(clock, monkeypatch):
    with terminal(monkeypatch) as stream, progress("train", 100) as shown:
        shown.say("step 1")
        clock.now += 3
        shown.advance()
        shown.say("step 2 [0/1]")
    lines = seen(stream)
    assert "step 1\n" in lines
    assert "step 2 [0/1]\n" in lines


def test_an_error_removes_the_bar(clock, monkeypatch):
    with (
        terminal(monkeypatch) as stream,
        pytest.raises(ValueError),
        progress("train", 100) as shown,
    ):
        clock.now += 3
        shown.advance()
        raise ValueError
    assert stream.getvalue().endswith("\x1b[2K")
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_are_in_two_units(seconds, text):
    assert duration(seconds) == text

"""Text for people: Markdown tables, pages, and which known word a mistyped one may mean."""

import difflib
import math
import reprlib
from collections.abc import Iterable, Sequence

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em; max-width: 70em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border: 1px solid #bbb; padding: .3em .7em; text-align: left; white-space: nowrap }
th { background: #eee }
pre { background: #f6f6f6; padding: 1em }
"""


def unknown_key(key: str, name: str, known: list[str]) -> str:
    """Say that a key is unknown, which one may be meant, and which there are."""
    return f"unknown key '{shortened(key, 100)}'{nearest(name, known)}; known here are {', '.join(known)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion, where one is close enough; case, hyphens and underscores do not count."""
    plain = {_letters_and_digits(name): name for name in known}
    close = difflib.get_close_matches(_letters_and_digits(word[:100]), list(plain), n=1)
    return f" (did you mean '{plain[close[0]]}'?)" if close else ""


def nearest_first(word: str, known: Iterable[str]) -> list[str]:
    """What is known, what is most like a word first."""
    return sorted(known, key=lambda name: -difflib.SequenceMatcher(None, word[:100], name).ratio())


def _letters_and_digits(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


def as_given(value: object) -> str:
    """A value as it stands in a message: short, however large it is and whatever is nested in it."""
    brief = reprlib.Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 2, 80, 80
    try:
        return shortened(brief.repr(value), 200)
    except ValueError:  # an integer of thousands of digits
        return f"a very large {type(value).__name__}"


def shortened(text: object, most: int = 20) -> str:
    """At most ``most`` characters on one line, control characters escaped: messages hold no one's texts."""
    start = " ".join(str(text).split())[: most + 1]
    line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in start)
    return line if len(line) <= most else f"{line[: most - 3]}..."


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """The first names, shortened and quoted, and how many more there are."""
    first = ", ".join(f"'{shortened(name)}'" for name in names[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up in a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def mean_and_sd_as_text(mean: float, sd: float, *, digits: int = 2) -> str:
    """Write ``mean ± sd``, without an SD where there is none, and ``-`` where there is no mean."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.{digits}f}" if math.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def html_page(markdown: str) -> str:
    """Render a table's Markdown as a page of its own, for the report."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><style>{_STYLE}</style>\n{body}</html>\n'

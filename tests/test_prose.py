"""What people read: short lines, links that lead somewhere, and no address but those of the sources."""

import re
from pathlib import Path

import pytest
from helpers import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
OTHERS = [
    ROOT / name
    for name in (
        ".github/workflows/ci.yml",
        ".snakemake-workflow-catalog.yml",
        "CITATION.cff",
        "Containerfile",
        "Makefile",
        "pyproject.toml",
        "requirements.lock",
    )
]
LONGEST_LINE = 120
MOST_WORDS = 900
HOSTS = {"arxiv.org", "keepachangelog.com"}
HOST = re.compile(r"(?<![\w@.-])(?:[a-z0-9-]+\.)+(?:com|dev|io|net|org)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def outside_code(page: Path) -> list[tuple[int, str]]:
    """Numbered lines of a page without its code blocks."""
    lines, code = [], False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not code:
            lines.append((number, line))
    return lines


def anchors(page: Path) -> set[str]:
    """What a link into this page can name: its headings, as they are written in addresses."""
    headings = [line.lstrip("# ") for _, line in outside_code(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_lines_are_short_outside_tables_and_code(page):
    long = [
        f"{named(page)}:{number}: {len(line)} characters"
        for number, line in outside_code(page)
        if len(line) > LONGEST_LINE and not line.lstrip().startswith("|")
    ]
    assert not long


def test_the_readme_comes_to_the_point():
    before, heading, _ = (ROOT / "README.md").read_text().partition("\n## Method\n")
    assert heading
    assert len(before.split()) <= MOST_WORDS


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_resolves(page):
    broken = []
    for number, line in outside_code(page):
        for target in LINK.findall(line):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists() or (anchor and anchor not in anchors(linked)):
                broken.append(f"{named(page)}:{number}: {target}")
    assert not broken


@pytest.mark.parametrize("path", [*PAGES, *OTHERS], ids=named)
def test_no_host_is_named_but_those_of_sources(path):
    assert set(HOST.findall(path.read_text())) <= HOSTS

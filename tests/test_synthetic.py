import re

import pytest

from pipeops.synthetic import SYNTHETIC_TASKS, generate

SENTIMENT, PARAPHRASE = TASKS = tuple(SYNTHETIC_TASKS)
ROWS = {"train": 4000, "validation": 1000}

POSITIVE = set(["brilliant", "charming", "clever", "gripping", "moving", "superb", "warm", "witty"])
NEGATIVE = set(["awful", "bland", "clumsy", "dull", "messy", "shallow", "tedious", "weak"])
MEANING = dict(
    line.split()
    for line in """
    physicians doctors
    attorneys lawyers
    instructors teachers
    growers farmers
    authors writers
    labourers workers
    commended praised
    accused blamed
    assisted helped
    welcomed greeted
    frequently often
    seldom rarely""".strip().splitlines()
)
FACT = re.compile(
    r"(?P<agent>\w+)( (?P<adverb>often|frequently|rarely|seldom))? (?P<deed>\w+) (?P<patient>\w+)"
    r"|(?P<patient_>\w+) were( (?P<adverb_>often|frequently|rarely|seldom))? (?P<deed_>\w+) by (?P<agent_>\w+)"
)


def read_opinion(sentence: str) -> int:
    """Polarity of a sentence: its main clause's adjective, turned by each negation in that clause."""
    if sentence.startswith("although "):
        clause = sentence.split(" , ")[1]
    elif " , but " in sentence:
        clause = sentence.split(" , but ")[1]
    else:
        clause = sentence.split(" , although ")[0]
    words = clause.split()
    assert words[-1] in POSITIVE | NEGATIVE
    negations = sum(word in ("not", "nobody", "denied") for word in words)
    return int((words[-1] in POSITIVE) ^ (negations % 2))


def read_fact(sentence: str) -> dict[str, str]:
    """Who did what to whom and how often, in the first of each pair of synonyms."""
    match = FACT.fullmatch(sentence)
    assert match, sentence
    found = {slot.strip("_"): word for slot, word in match.groupdict().items() if word}
    return {slot: MEANING.get(word, word) for slot, word in found.items()}


def label_by_reading(row: dict) -> int:
    if "sentence" in row:
        return read_opinion(row["sentence"])
    return int(read_fact(row["sentence1"]) == read_fact(row["sentence2"]))


def rows_of(task: str, split: str, rows: int | None = None) -> list[dict]:
    columns = generate(task, split, rows or ROWS[split])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def texts(row: dict) -> tuple[str, ...]:
    return tuple(value for name, value in row.items() if name.startswith("sentence"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ROWS)
def test_reading_the_text_gives_the_label(task, split):
    assert [label_by_reading(row) for row in rows_of(task, split)] == generate(task, split, ROWS[split])[
        "label"
    ]

import hashlib
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from pipeops.data.synthetic import LEVELS, SYNTHETIC_TASKS, generate, pretraining_text, vocabulary

SENTIMENT, PARAPHRASE = TASKS = tuple(SYNTHETIC_TASKS)
ROWS = {"train": 4000, "validation": 1000}

POSITIVE = {"brilliant", "charming", "clever", "gripping", "moving", "superb", "warm", "witty"}
NEGATIVE = {"awful", "bland", "clumsy", "dull", "messy", "shallow", "tedious", "weak"}
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
CONVERSE = {
    "frightened": "feared",
    "led": "followed",
    "pleased": "liked",
    "hosted": "visited",
    "impressed": "admired",
    "convinced": "believed",
    "commanded": "obeyed",
    "preceded": "succeeded",
}
ADVERB = "often|frequently|rarely|seldom|never"
FACT = re.compile(
    rf"(?P<agent>\w+) (?P<adverb>{ADVERB}) (?P<deed>\w+) (?P<patient>\w+)"
    rf"|(?P<patient_>\w+) were (?P<adverb_>{ADVERB}) (?P<deed_>\w+) by (?P<agent_>\w+)"
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
    assert negations <= 1
    return int((words[-1] in POSITIVE) ^ (negations % 2))


def read_fact(sentence: str) -> dict[str, str]:
    """Who did what to whom and how often, in one word for synonyms and one for converses."""
    match = FACT.fullmatch(sentence)
    assert match, sentence
    found = {slot.strip("_"): word for slot, word in match.groupdict().items() if word}
    found = {slot: MEANING.get(word, word) for slot, word in found.items()}
    if found["deed"] in CONVERSE:
        found |= {"deed": CONVERSE[found["deed"]], "agent": found["patient"], "patient": found["agent"]}
    return found


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


@pytest.mark.parametrize("task", TASKS)
def test_fewer_rows_are_a_prefix_of_more(task):
    many = generate(task, "train", 300)
    assert generate(task, "train", 101) == {name: values[:101] for name, values in many.items()}


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        (SENTIMENT, "9a2402bbd3d5b739"),
        (PARAPHRASE, "96333d08f3df86b7"),
    ],
)
def test_the_same_rows_for_ever(task, digest):
    rows = json.dumps([generate(task, split, 500) for split in ROWS])
    assert hashlib.sha256(rows.encode()).hexdigest()[:16] == digest


def test_the_same_pretraining_text_for_ever():
    text = json.dumps(pretraining_text(500, TASKS))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "ccc89041bf57c8c1"


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_no_text(task):
    train, validation = ({texts(row) for row in rows_of(task, split)} for split in ROWS)
    assert not train & validation


def test_pretraining_uses_no_text_of_the_validation_splits():
    pairs = pretraining_text(6000, TASKS)
    seen = {(first,) for first, _ in pairs} | set(pairs)
    unseen = {texts(row) for task in TASKS for row in rows_of(task, "validation")}
    assert not seen & unseen


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ROWS)
def test_labels_are_balanced_at_every_level(task, split):
    counts = Counter((row["difficulty"], row["label"]) for row in rows_of(task, split))
    assert {level for level, _ in counts} == set(LEVELS[task])
    assert max(counts.values()) - min(counts.values()) <= 1


def bag_accuracy(task: str) -> dict[int, float]:
    """Validation accuracy per level of the training rows' majority label among those with the same words.

    The same words: as often, in any order; adjectives of one polarity and synonyms count as one word.
    """
    votes: dict[tuple, Counter] = defaultdict(Counter)
    for row in rows_of(task, "train", 30_000):
        votes[bag(row)][row["label"]] += 1
    right: dict[int, list[bool]] = defaultdict(list)
    for row in rows_of(task, "validation", 6000):
        if seen := votes[bag(row)]:
            right[row["difficulty"]].append(seen.most_common(1)[0][0] == row["label"])
    return {level: float(np.mean(hits)) for level, hits in right.items()}


def bag(row: dict) -> tuple:
    words = " ".join(texts(row)).split()
    people = {"doctors", "lawyers", "teachers", "farmers", "writers", "workers"}
    aspects = {"acting", "cast", "dialogue", "ending", "humour", "music", "plot", "script"}
    kinds = []
    for word in (MEANING.get(word, word) for word in words):
        if word in people | aspects:
            continue  # they are drawn regardless of the label
        kinds.append("positive" if word in POSITIVE else "negative" if word in NEGATIVE else word)
    return row["difficulty"], *sorted(kinds)


def test_words_alone_tell_the_label_at_the_easy_levels_only():
    sentiment, paraphrase = bag_accuracy(SENTIMENT), bag_accuracy(PARAPHRASE)
    assert min(sentiment[level] for level in (1, 2)) == 1
    assert max(sentiment[level] for level in (3, 4, 5)) < 0.56
    assert min(paraphrase[level] for level in (1, 2, 3)) == 1
    assert max(paraphrase[level] for level in (4, 5, 6)) < 0.56


def rearranged(row: dict) -> tuple[str, ...]:
    """The row's words in another order that turns the label round."""
    if "sentence" in row:
        return (exchange_clauses(row["sentence"]),)
    return row["sentence1"], exchange_people(row["sentence2"])


def exchange_clauses(sentence: str) -> str:
    if match := re.fullmatch(r"although (.+) , (.+)", sentence):
        return f"although {match[2]} , {match[1]}"
    first, connective, second = re.fullmatch(r"(.+) , (although|but) (.+)", sentence).groups()
    return f"{second} , {connective} {first}"


def exchange_people(sentence: str) -> str:
    words = sentence.split()
    words[0], words[-1] = words[-1], words[0]
    return " ".join(words)


@pytest.mark.parametrize(("task", "hard"), [(SENTIMENT, (3, 4, 5)), (PARAPHRASE, (4, 5, 6))])
def test_the_same_words_in_another_order_turn_the_label_round_at_the_hard_levels(task, hard):
    rows = [row for row in rows_of(task, "validation") if row["difficulty"] in hard]
    assert rows
    for row in rows:
        other = dict(zip((name for name in row if name.startswith("sentence")), rearranged(row), strict=True))
        assert sorted(" ".join(texts(other)).split()) == sorted(" ".join(texts(row)).split())
        assert label_by_reading(other) == 1 - row["label"]


def test_vocabulary_is_exactly_the_words_that_occur():
    used = {
        word
        for task in TASKS
        for row in rows_of(task, "train")
        for text in texts(row)
        for word in text.split()
    }
    used |= {word for pair in pretraining_text(3000, TASKS) for text in pair for word in text.split()}
    assert vocabulary() == sorted(used)


def test_inputs_are_short():
    length = {task: [len(" ".join(texts(row)).split()) for row in rows_of(task, "train")] for task in TASKS}
    assert max(length[SENTIMENT]) <= 18
    assert max(length[PARAPHRASE]) <= 12


def test_pretraining_restates():
    for index, (first, second) in enumerate(pretraining_text(3000, TASKS)):
        if index % 3 == 0:
            assert second.startswith("it was ")
            assert read_opinion(first) == read_opinion(second)
        else:
            assert read_fact(first) == read_fact(second)


def test_a_task_alone_is_pretrained_for_alone():
    opinions = pretraining_text(400, [SENTIMENT])
    assert {second.split()[0] for _, second in opinions} == {"it"}
    facts = pretraining_text(400, [PARAPHRASE])
    assert all(read_fact(first) == read_fact(second) for first, second in facts)
    assert pretraining_text(9, TASKS[::-1]) == pretraining_text(9, TASKS)

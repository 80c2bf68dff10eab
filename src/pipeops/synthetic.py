"""Two generated classification tasks of graded difficulty, and text to pretrain a tiny backbone on.

``generated-sentiment``: is the opinion that a sentence ends up with positive (1) or negative (0)? Level 1
can be read off one adjective, then come negation, contrast, and the scope of several negations in a contrast.

``generated-paraphrase``: do two sentences tell the same (1) or not (0)? They differ in words (synonyms),
voice and order. Where they do not tell the same, a fact is another (levels 1 and 2: the words
give it away) or two roles are exchanged (from level 3 on: both labels have the same words).

Everything is drawn by ``random.Random`` from fixed seeds. A text's checksum says to which split it
belongs, so that no number of rows makes the splits overlap.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from string import Formatter
from types import MappingProxyType

Row = dict[str, str]
"""The text columns of one example."""

_VALIDATION_SHARE = 5  # one text in five belongs to the validation split

# --- Sentiment -------------------------------------------------------------------------------------------

_ASPECTS = ("acting", "cast", "dialogue", "ending", "humour", "music", "plot", "pacing", "script", "setting")
_ADJECTIVES = {
    1: (
        "brilliant",
        "charming",
        "clever",
        "fresh",
        "gripping",
        "moving",
        "superb",
        "touching",
        "warm",
        "witty",
    ),
    0: ("awful", "bland", "clumsy", "dull", "lifeless", "messy", "shallow", "silly", "tedious", "weak"),
}
# By number of negations; each turns what the adjective says into its opposite.
_CLAUSES = {
    0: (
        "the {aspect} was {adjective}",
        "everybody thought that the {aspect} was {adjective}",
        "critics agreed that the {aspect} was {adjective}",
    ),
    1: (
        "the {aspect} was not {adjective}",
        "nobody thought that the {aspect} was {adjective}",
        "critics denied that the {aspect} was {adjective}",
    ),
    2: (
        "nobody thought that the {aspect} was not {adjective}",
        "critics denied that the {aspect} was not {adjective}",
        "nobody denied that the {aspect} was {adjective}",
    ),
}
_STATEMENT = ("{main} .",)
_CONTRAST = ("although {other} , {main} .", "{main} , although {other} .", "{other} , but {main} .")


@dataclass(frozen=True)
class _Opinion:
    """What a level of the sentiment task is made of."""

    sentences: tuple[str, ...]
    """Templates; the main clause decides, the other one says the opposite."""
    negations: tuple[int, ...]
    """How many negations a clause has: one of these."""


_SENTIMENT_LEVELS = {
    1: _Opinion(_STATEMENT, (0,)),
    2: _Opinion(_STATEMENT, (0, 1)),
    3: _Opinion(_CONTRAST, (0,)),
    4: _Opinion(_CONTRAST, (0, 1)),
    5: _Opinion(_CONTRAST, (0, 1, 2)),
}


def _sentiment(rng: Random, level: int, label: int) -> Row:
    """One sentence whose main clause is positive (1) or negative (0)."""
    opinion = _SENTIMENT_LEVELS[level]
    aspects = rng.sample(_ASPECTS, 2)
    main = _clause(rng, aspects[0], label, rng.choice(opinion.negations))
    other = _clause(rng, aspects[1], 1 - label, rng.choice(opinion.negations))
    return {"sentence": rng.choice(opinion.sentences).format(main=main, other=other)}


def _clause(rng: Random, aspect: str, polarity: int, negations: int) -> str:
    """A clause that amounts to ``polarity`` after its negations."""
    adjective = rng.choice(_ADJECTIVES[polarity ^ (negations % 2)])
    return rng.choice(_CLAUSES[negations]).format(aspect=aspect, adjective=adjective)


# --- Paraphrase ------------------------------------------------------------------------------------------

_PEOPLE = (
    ("doctors", "physicians"),
    ("lawyers", "attorneys"),
    ("teachers", "instructors"),
    ("farmers", "growers"),
    ("writers", "authors"),
    ("soldiers", "troops"),
    ("thieves", "robbers"),
    ("sailors", "seamen"),
    ("workers", "labourers"),
    ("customers", "clients"),
)
_DEEDS = (
    ("praised", "commended"),
    ("blamed", "accused"),
    ("helped", "assisted"),
    ("greeted", "welcomed"),
    ("fooled", "deceived"),
    ("feared", "dreaded"),
)
_TIMES = (("dawn", "sunrise"), ("noon", "midday"), ("dusk", "sunset"))
_VOICES = ("{agent} {deed} {patient}", "{patient} were {deed} by {agent}")
_WITH_TIME = ("{fact} at {time}", "at {time} , {fact}")


@dataclass(frozen=True)
class _Fact:
    """Who did what to whom, and when; each an index of its table."""

    agent: int
    deed: int
    patient: int
    time: int | None = None


def _fact(rng: Random, *, timed: bool) -> _Fact:
    agent, patient = rng.sample(range(len(_PEOPLE)), 2)
    return _Fact(agent, rng.randrange(len(_DEEDS)), patient, rng.randrange(len(_TIMES)) if timed else None)


@dataclass(frozen=True)
class _Style:
    """How freely a fact is put into words: one of which synonyms, voices and orders."""

    synonyms: bool
    voices: bool

    def say(self, rng: Random, fact: _Fact) -> str:
        def word(synonyms: tuple[str, ...]) -> str:
            return rng.choice(synonyms) if self.synonyms else synonyms[0]

        text = (rng.choice(_VOICES) if self.voices else _VOICES[0]).format(
            agent=word(_PEOPLE[fact.agent]), deed=word(_DEEDS[fact.deed]), patient=word(_PEOPLE[fact.patient])
        )
        if fact.time is not None:
            text = rng.choice(_WITH_TIME).format(fact=text, time=word(_TIMES[fact.time]))
        return text


def _other_time(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, time=_another(rng, fact.time, _TIMES))


def _other_deed(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, deed=_another(rng, fact.deed, _DEEDS))


def _exchanged(rng: Random, fact: _Fact) -> _Fact:  # noqa: ARG001
    return replace(fact, agent=fact.patient, patient=fact.agent)


def _another(rng: Random, index: int | None, table: tuple[tuple[str, ...], ...]) -> int:
    return rng.choice([other for other in range(len(table)) if other != index])


@dataclass(frozen=True)
class _Retelling:
    """What a level of the paraphrase task is made of."""

    style: _Style
    falsify: Callable[[Random, _Fact], _Fact]
    """Makes the other fact that a pair with label 0 tells."""


_PARAPHRASE_LEVELS = {
    1: _Retelling(_Style(synonyms=False, voices=False), _other_time),
    2: _Retelling(_Style(synonyms=True, voices=False), _other_deed),
    3: _Retelling(_Style(synonyms=False, voices=False), _exchanged),
    4: _Retelling(_Style(synonyms=False, voices=True), _exchanged),
    5: _Retelling(_Style(synonyms=True, voices=True), _exchanged),
}


def _paraphrase(rng: Random, level: int, label: int) -> Row:
    """Two sentences that tell the same fact (1) or two different ones (0)."""
    retelling = _PARAPHRASE_LEVELS[level]
    fact = _fact(rng, timed=True)
    told = fact if label else retelling.falsify(rng, fact)
    return {
        "sentence1": retelling.style.say(rng, fact) + " .",
        "sentence2": retelling.style.say(rng, told) + " .",
    }


# --- Rows ------------------------------------------------------------------------------------------------

Generator = Callable[[Random, int, int], Row]
SYNTHETIC_TASKS: Mapping[str, Generator] = MappingProxyType(
    {"generated-sentiment": _sentiment, "generated-paraphrase": _paraphrase}
)
"""By task name: a function of a random generator, the level and the label that makes one example."""

LEVELS = (1, 2, 3, 4, 5)
"""Levels of difficulty, easiest first; each has the same share of the rows."""


def generate(task: str, split: str, rows: int) -> dict[str, list]:
    """Generate the first ``rows`` examples of a split.

    Args:
        task: one of `SYNTHETIC_TASKS`.
        split: ``train`` or ``validation``; they share no text.
        rows: how many; the first of more rows are the same.

    Returns:
        Columns of equal length: the task's text (``sentence``, or ``sentence1`` and ``sentence2``: words
        separated by spaces), ``label`` (0 or 1, in turn) and ``difficulty`` (level from 1 on).
    """
    rng = Random(f"{task}/{split}")
    columns: dict[str, list] = {}
    for index in range(rows):
        label, level = index % 2, LEVELS[index // 2 % len(LEVELS)]
        row = _draw(lambda: SYNTHETIC_TASKS[task](rng, level, label), split)  # noqa: B023
        for name, value in (row | {"label": label, "difficulty": level}).items():
            columns.setdefault(name, []).append(value)
    return columns


def _draw(make: Callable[[], Row], split: str) -> Row:
    """Make rows until one belongs to ``split``."""
    while True:
        row = make()
        checksum = zlib.crc32("\t".join(row.values()).encode())
        if (split == "validation") == (checksum % _VALIDATION_SHARE == 0):
            return row


def pretraining_text(rows: int) -> list[tuple[str, str]]:
    """Generate text for masked language modelling: sentences, each with a second one that restates it.

    No labels: what the second sentence teaches is which words can stand for which, and where to look for them.
    """
    rng = Random("pretraining")
    pairs = []
    for index in range(rows):
        level = rng.choice(LEVELS)
        if index % 2:
            pair = tuple(_draw(lambda: _paraphrase(rng, level, 1), "train").values())  # noqa: B023
        else:
            label = rng.randrange(2)
            pair = tuple(_draw(lambda: _sentiment(rng, level, label), "train")["sentence"] for _ in range(2))
        pairs.append(pair)
    return pairs


def vocabulary() -> list[str]:
    """All words of both tasks, sorted; punctuation marks are words."""
    tables = (_ASPECTS, *_ADJECTIVES.values(), *_PEOPLE, *_DEEDS, *_TIMES)
    templates = (*_STATEMENT, *_CONTRAST, *_VOICES, *_WITH_TIME, *(t for ts in _CLAUSES.values() for t in ts))
    words = {word for table in tables for word in table}
    return sorted(words.union(*(_literal_words(template) for template in templates)))


def _literal_words(template: str) -> Iterator[str]:
    for literal, *_ in Formatter().parse(template):
        yield from literal.split()

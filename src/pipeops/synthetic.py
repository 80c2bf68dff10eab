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

_ASPECTS = ("acting", "cast", "dialogue", "ending", "humour", "music", "plot", "script")
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
    0: ("awful", "bland", "clumsy", "dull", "messy", "shallow", "tedious", "weak"),
}
# By number of negations; each turns what the adjective says into its opposite.
_CLAUSES = {
    0: (
        "the {aspect} was {adjective}",
        "everybody thought the {aspect} was {adjective}",
        "critics agreed the {aspect} was {adjective}",
    ),
    1: (
        "the {aspect} was not {adjective}",
        "nobody thought the {aspect} was {adjective}",
        "critics denied the {aspect} was {adjective}",
    ),
    2: (
        "nobody thought the {aspect} was not {adjective}",
        "critics denied the {aspect} was not {adjective}",
        "nobody denied the {aspect} was {adjective}",
    ),
}
_STATEMENT = ("{main}",)
_LAST_DECIDES = ("although {other} , {main}", "{other} , but {main}")
_CONTRAST = (*_LAST_DECIDES, "{main} , although {other}")
_GIST = "it was {adjective}"


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
    3: _Opinion(_LAST_DECIDES, (0,)),
    4: _Opinion(_CONTRAST, (0,)),
    5: _Opinion(_CONTRAST, (0, 1)),
}


def _sentiment(rng: Random, level: int, label: int) -> Row:
    """One sentence whose main clause is positive (1) or negative (0)."""
    return {"sentence": _opinion(rng, level, label, rng.choice(_ASPECTS))}


def _opinion(rng: Random, level: int, label: int, aspect: str) -> str:
    shape = _SENTIMENT_LEVELS[level]
    other_aspect = rng.choice([other for other in _ASPECTS if other != aspect])
    main = _clause(rng, aspect, label, rng.choice(shape.negations))
    other = _clause(rng, other_aspect, 1 - label, rng.choice(shape.negations))
    return rng.choice(shape.sentences).format(main=main, other=other)


def _restated_opinion(rng: Random) -> tuple[str, str]:
    """An opinion and its gist."""
    level, polarity = rng.choice(LEVELS), rng.randrange(2)
    gist = _GIST.format(adjective=rng.choice(_ADJECTIVES[polarity]))
    return _opinion(rng, level, polarity, rng.choice(_ASPECTS)), gist


def _clause(rng: Random, aspect: str, polarity: int, negations: int) -> str:
    """A clause that amounts to ``polarity`` after its negations."""
    adjective = rng.choice(_ADJECTIVES[polarity ^ (negations % 2)])
    return rng.choice(_CLAUSES[negations]).format(aspect=aspect, adjective=adjective)


# --- Paraphrase ------------------------------------------------------------------------------------------

_SYNONYMS = {
    "person": (
        ("doctors", "physicians"),
        ("lawyers", "attorneys"),
        ("teachers", "instructors"),
        ("farmers", "growers"),
        ("writers", "authors"),
        ("workers", "labourers"),
    ),
    "deed": (
        ("praised", "commended"),
        ("blamed", "accused"),
        ("helped", "assisted"),
        ("greeted", "welcomed"),
    ),
    "adverb": (("often", "frequently"), ("rarely", "seldom")),
}
_SYNONYM = {
    word: other for pairs in _SYNONYMS.values() for pair in pairs for word, other in (pair, pair[::-1])
}
_VOICES = ("{agent} {adverb} {deed} {patient}", "{patient} were {adverb} {deed} by {agent}")


@dataclass(frozen=True)
class _Fact:
    """Who did what to whom, and how often."""

    agent: str
    deed: str
    patient: str
    adverb: str


def _fact(rng: Random) -> _Fact:
    agent, patient = (rng.choice(pair) for pair in rng.sample(_SYNONYMS["person"], 2))
    adverb = rng.choice(rng.choice(_SYNONYMS["adverb"]))
    return _Fact(agent=agent, deed=rng.choice(rng.choice(_SYNONYMS["deed"])), patient=patient, adverb=adverb)


def _with_synonyms(rng: Random, fact: _Fact, slots: tuple[str, ...]) -> _Fact:
    """Say the same with each word of the named slots kept or replaced by its synonym."""
    return replace(
        fact, **{slot: rng.choice((word, _SYNONYM[word])) for slot in slots if (word := getattr(fact, slot))}
    )


def _another(rng: Random, word: str, kind: str) -> str:
    """A word of the same kind with another meaning."""
    return rng.choice(rng.choice([pair for pair in _SYNONYMS[kind] if word not in pair]))


def _other_adverb(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, adverb=_another(rng, fact.adverb, "adverb"))


def _other_deed(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, deed=_another(rng, fact.deed, "deed"))


def _exchanged_roles(_: Random, fact: _Fact) -> _Fact:
    return replace(fact, agent=fact.patient, patient=fact.agent)


@dataclass(frozen=True)
class _Retelling:
    """What a level of the paraphrase task is made of."""

    falsify: Callable[[Random, _Fact], _Fact]
    """Makes the other fact that a pair with label 0 tells."""
    synonyms: tuple[str, ...]
    """The slots of a fact whose words may differ between the sentences."""
    voices: bool
    """Whether one sentence may be active and the other passive."""


_ALL = ("agent", "deed", "patient", "adverb")
_PARAPHRASE_LEVELS = {
    1: _Retelling(_other_adverb, synonyms=("deed",), voices=False),
    2: _Retelling(_other_deed, synonyms=_ALL, voices=False),
    3: _Retelling(_exchanged_roles, synonyms=("deed",), voices=False),
    4: _Retelling(_exchanged_roles, synonyms=("deed",), voices=True),
    5: _Retelling(_exchanged_roles, synonyms=_ALL, voices=True),
}


def _paraphrase(rng: Random, level: int, label: int) -> Row:
    """Two sentences that tell the same fact (1) or two different ones (0)."""
    retelling = _PARAPHRASE_LEVELS[level]
    fact = _fact(rng)
    told = _with_synonyms(rng, fact if label else retelling.falsify(rng, fact), retelling.synonyms)
    voice = rng.choice(_VOICES)
    other_voice = rng.choice(_VOICES) if retelling.voices else voice
    return {"sentence1": _say(fact, voice), "sentence2": _say(told, other_voice)}


def _say(fact: _Fact, voice: str) -> str:
    return voice.format(**vars(fact))


def _restated_fact(rng: Random) -> tuple[str, str]:
    """A fact told twice: half of the time in the same words, else with synonyms and perhaps in the other voice."""
    fact, voice = _fact(rng), rng.choice(_VOICES)
    if rng.random() < 0.5:
        return _say(fact, voice), _say(fact, voice)
    return _say(fact, voice), _say(_with_synonyms(rng, fact, _ALL), rng.choice(_VOICES))


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
    makers = (_restated_opinion, _restated_fact)
    return [makers[index % len(makers)](rng) for index in range(rows)]


def vocabulary() -> list[str]:
    """All words of both tasks, sorted; punctuation marks are words."""
    tables = (_ASPECTS, *_ADJECTIVES.values(), _SYNONYM)
    templates = (*_STATEMENT, *_CONTRAST, _GIST, *_VOICES, *(t for ts in _CLAUSES.values() for t in ts))
    words = {word for table in tables for word in table}
    return sorted(words.union(*(_literal_words(template) for template in templates)))


def _literal_words(template: str) -> Iterator[str]:
    for literal, *_ in Formatter().parse(template):
        yield from literal.split()

"""Two generated classification tasks of graded difficulty, and text to pretrain a tiny backbone on.

``generated-sentiment``: is the opinion that a sentence ends up with positive (1) or negative (0)? At level 1
one adjective tells; then come negation (2), contrast (3, 4), and both (5).

``generated-paraphrase``: do two sentences tell the same (1) or not (0)? Up to level 3 a wrong word gives it
away: a denial (1), another adverb (2), another deed among synonyms (3). From level 4 on roles are exchanged,
so that both labels have the same words: in the same voice (4), between synonyms, active and passive (5),
and with converse verbs (6: "doctors feared lawyers" is "lawyers frightened doctors").

Everything is drawn by ``random.Random`` from fixed seeds. A text's checksum says to which split it belongs,
so no number of rows makes the splits overlap; within a split, the few sentences of the easiest levels recur.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from string import Formatter
from types import MappingProxyType

Row = dict[str, str]
"""The text columns of one example."""

_VALIDATION_SHARE = 5  # one text in five belongs to the validation split

_ASPECTS = ("acting", "cast", "dialogue", "ending", "humour", "music", "plot", "script")
_ADJECTIVES = {
    1: ("brilliant", "charming", "clever", "gripping", "moving", "superb", "warm", "witty"),
    0: ("awful", "bland", "clumsy", "dull", "messy", "shallow", "tedious", "weak"),
}
# Affirmed and negated; a negation turns what the adjective says into its opposite.
_CLAUSES = {
    False: (
        "the {aspect} was {adjective}",
        "everybody thought the {aspect} was {adjective}",
        "critics agreed the {aspect} was {adjective}",
    ),
    True: (
        "the {aspect} was not {adjective}",
        "nobody thought the {aspect} was {adjective}",
        "critics denied the {aspect} was {adjective}",
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
    negated: tuple[bool, ...] = (False,)
    """Whether a clause is negated: one of these."""


_SENTIMENT_LEVELS = {
    1: _Opinion(_STATEMENT),
    2: _Opinion(_STATEMENT, (False, True)),
    3: _Opinion(_LAST_DECIDES),
    4: _Opinion(_CONTRAST),
    5: _Opinion(_CONTRAST, (False, True)),
}


def _sentiment(rng: Random, level: int, label: int) -> Row:
    """One sentence whose main clause is positive (1) or negative (0)."""
    opinion = _SENTIMENT_LEVELS[level]
    aspects = rng.sample(_ASPECTS, 2)
    main = _clause(rng, aspects[0], label, rng.choice(opinion.negated))
    other = _clause(rng, aspects[1], 1 - label, rng.choice(opinion.negated))
    return {"sentence": rng.choice(opinion.sentences).format(main=main, other=other)}


def _clause(rng: Random, aspect: str, polarity: int, negated: bool) -> str:
    """A clause that amounts to ``polarity``, in the words of the other polarity where it is negated."""
    adjective = rng.choice(_ADJECTIVES[polarity ^ negated])
    return rng.choice(_CLAUSES[negated]).format(aspect=aspect, adjective=adjective)


def _opinion_and_gist(rng: Random) -> tuple[str, str]:
    """A sentence of any level, and what it amounts to."""
    level, polarity = rng.choice(tuple(_SENTIMENT_LEVELS)), rng.randrange(2)
    opinion = _draw(partial(_sentiment, rng, level, polarity), "train")
    return opinion["sentence"], _GIST.format(adjective=rng.choice(_ADJECTIVES[polarity]))


_PEOPLE = (
    ("doctors", "physicians"),
    ("lawyers", "attorneys"),
    ("teachers", "instructors"),
    ("farmers", "growers"),
    ("writers", "authors"),
    ("workers", "labourers"),
)
_DEEDS = (("praised", "commended"), ("blamed", "accused"), ("helped", "assisted"), ("greeted", "welcomed"))
_ADVERBS = (("often", "frequently"), ("rarely", "seldom"))
_CONVERSES = (
    ("feared", "frightened"),
    ("followed", "led"),
    ("liked", "pleased"),
    ("visited", "hosted"),
    ("admired", "impressed"),
    ("believed", "convinced"),
    ("obeyed", "commanded"),
    ("succeeded", "preceded"),
)
"""Deeds whose second word tells the same with agent and patient exchanged."""
_DENIAL = "never"
_VOICES = ("{agent} {adverb} {deed} {patient}", "{patient} were {adverb} {deed} by {agent}")

_Pairs = tuple[tuple[str, str], ...]


def _partners(pairs: _Pairs) -> dict[str, str]:
    return {word: other for pair in pairs for word, other in (pair, pair[::-1])}


_SYNONYM = _partners(_PEOPLE + _DEEDS + _ADVERBS)
_CONVERSE = _partners(_CONVERSES)


@dataclass(frozen=True)
class _Fact:
    """Who did what to whom, and how often."""

    agent: str
    deed: str
    patient: str
    adverb: str


def _fact(rng: Random, deeds: _Pairs) -> _Fact:
    agent, patient = (rng.choice(pair) for pair in rng.sample(_PEOPLE, 2))
    return _Fact(agent=agent, deed=_word(rng, deeds), patient=patient, adverb=_word(rng, _ADVERBS))


def _word(rng: Random, pairs: _Pairs, *, unlike: str = "") -> str:
    """A word of one of the pairs, not of the one that holds ``unlike``."""
    return rng.choice(rng.choice([pair for pair in pairs if unlike not in pair]))


# Ways of telling the same ...


def _same_people(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, deed=_perhaps(rng, fact.deed, _SYNONYM))


def _synonyms(rng: Random, fact: _Fact) -> _Fact:
    return _Fact(**{slot: _perhaps(rng, word, _SYNONYM) for slot, word in vars(fact).items()})


def _converse(rng: Random, fact: _Fact) -> _Fact:
    deed = _perhaps(rng, fact.deed, _CONVERSE)
    return fact if deed == fact.deed else _exchanged(rng, replace(fact, deed=deed))


def _perhaps(rng: Random, word: str, partner: Mapping[str, str]) -> str:
    return rng.choice((word, partner.get(word, word)))


# ... and something else.


def _denied(_: Random, fact: _Fact) -> _Fact:
    return replace(fact, adverb=_DENIAL)


def _other_adverb(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, adverb=_word(rng, _ADVERBS, unlike=fact.adverb))


def _other_deed(rng: Random, fact: _Fact) -> _Fact:
    return replace(fact, deed=_word(rng, _DEEDS, unlike=fact.deed))


def _exchanged(_: Random, fact: _Fact) -> _Fact:
    return replace(fact, agent=fact.patient, patient=fact.agent)


_Change = Callable[[Random, _Fact], _Fact]


@dataclass(frozen=True)
class _Retelling:
    """What a level of the paraphrase task is made of."""

    falsify: _Change
    """Turns the second sentence's fact into another one where the label is 0."""
    reword: _Change = _same_people
    """Says the same in other words."""
    voices: bool = False
    """Whether one sentence may be active and the other passive."""
    deeds: _Pairs = _DEEDS


_PARAPHRASE_LEVELS = {
    1: _Retelling(_denied),
    2: _Retelling(_other_adverb),
    3: _Retelling(_other_deed, reword=_synonyms),
    4: _Retelling(_exchanged),
    5: _Retelling(_exchanged, reword=_synonyms, voices=True),
    6: _Retelling(_exchanged, reword=_converse, voices=True, deeds=_CONVERSES),
}


def _paraphrase(rng: Random, level: int, label: int) -> Row:
    """Two sentences that tell the same fact (1) or two different ones (0)."""
    retelling = _PARAPHRASE_LEVELS[level]
    fact = _fact(rng, retelling.deeds)
    told = retelling.reword(rng, fact)
    if not label:
        told = retelling.falsify(rng, told)
    voice = rng.choice(_VOICES)
    other_voice = rng.choice(_VOICES) if retelling.voices else voice
    return _pair(fact, voice, told, other_voice)


def _pair(fact: _Fact, voice: str, told: _Fact, other_voice: str) -> Row:
    return {"sentence1": voice.format(**vars(fact)), "sentence2": other_voice.format(**vars(told))}


def _restated_fact(rng: Random) -> Row:
    """A fact told twice: as often in the same words as with synonyms and perhaps in the other voice."""
    fact, voice = _fact(rng, _DEEDS), rng.choice(_VOICES)
    if rng.random() < 0.5:
        return _pair(fact, voice, fact, voice)
    return _pair(fact, voice, _synonyms(rng, fact), rng.choice(_VOICES))


def _fact_twice(rng: Random) -> tuple[str, str]:
    row = _draw(partial(_restated_fact, rng), "train")
    return row["sentence1"], row["sentence2"]


Generator = Callable[[Random, int, int], Row]
SYNTHETIC_TASKS: Mapping[str, Generator] = MappingProxyType(
    {"generated-sentiment": _sentiment, "generated-paraphrase": _paraphrase}
)
"""By task name: a function of a random generator, the level and the label that makes one example."""

LEVELS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"generated-sentiment": tuple(_SENTIMENT_LEVELS), "generated-paraphrase": tuple(_PARAPHRASE_LEVELS)}
)
"""By task name: its levels of difficulty, easiest first; each has the same share of the rows."""


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
    rng, levels = Random(f"{task}/{split}"), LEVELS[task]
    columns: dict[str, list] = {}
    for index in range(rows):
        label, level = index % 2, levels[index // 2 % len(levels)]
        row = _draw(partial(SYNTHETIC_TASKS[task], rng, level, label), split)
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


PRETRAINING_TEXTS: Mapping[str, tuple[Callable[[Random], tuple[str, str]], ...]] = MappingProxyType(
    {
        "generated-sentiment": (_opinion_and_gist,),
        "generated-paraphrase": (_fact_twice, _fact_twice),  # comparing is the slower to learn
    }
)
"""By task name: what makes pairs of sentences that teach what the task needs, in turn."""


def pretraining_text(rows: int, tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Generate text for masked language modelling: sentences, each with a second one that restates it.

    There are no labels, no texts of a validation split and no converse verbs. The second sentence teaches
    which words can stand for each other, what a sentence amounts to, and to look for a word's counterpart.

    Args:
        rows: how many pairs.
        tasks: of `SYNTHETIC_TASKS`, what they are to help with; in any order.
    """
    rng = Random("pretraining")
    makers = [maker for task, texts in PRETRAINING_TEXTS.items() if task in tasks for maker in texts]
    return [makers[index % len(makers)](rng) for index in range(rows)]


def vocabulary() -> list[str]:
    """All words of both tasks, sorted; punctuation marks are words."""
    tables = (_ASPECTS, *_ADJECTIVES.values(), _SYNONYM, _CONVERSE, (_DENIAL,))
    templates = (*_STATEMENT, *_CONTRAST, _GIST, *_VOICES, *(t for ts in _CLAUSES.values() for t in ts))
    words = {word for table in tables for word in table}
    return sorted(words.union(*(_literal_words(template) for template in templates)))


def _literal_words(template: str) -> Iterator[str]:
    for literal, *_ in Formatter().parse(template):
        yield from literal.split()

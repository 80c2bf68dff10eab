"""Pipelines: valid sequences of operators. Imports nothing heavy.

A pipeline is written left to right (Xin et al. 2022, section 4.2): ``DEPLQ`` distils a fine-tuned model,
gives the student early exits, prunes it, and runs the result with dynamic length and quantisation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Self

from pipeops.errors import PipeOpsError
from pipeops.operators.registry import OPERATORS


class InvalidPipeline(PipeOpsError, ValueError):
    """A text that is no pipeline, or no set of operators whose order can be studied."""


_OF_THE_MODEL = ("transforms", "trained")
"""Kinds of operators that make a model of another."""
INFERENCE = ("", "L", "Q", "LQ")
"""The inference operators that every trained pipeline is measured with: none, either, both."""


@dataclass(frozen=True, order=True)
class Pipeline:
    """A valid sequence of operators. Equal pipelines have equal texts, and sort by them.

    ``text`` becomes canonical: ``O`` where nothing is trained, and the inference operators, which commute,
    in the order L, Q. So ``OQL``, ``OLQ`` and ``QL`` are one pipeline, ``OLQ``. ``O`` in front of trained
    operators (``OD``) is refused, not dropped: one pipeline must not go by two names in paths and tables.

    Raises:
        InvalidPipeline: the text breaks a rule; the message says which one.
    """

    text: str

    def __post_init__(self) -> None:
        _check_letters(self.text, what="pipeline")
        for earlier, later in combinations(self.text, 2):
            if reason := OPERATORS[later].refuses(OPERATORS[earlier]):
                raise InvalidPipeline(
                    f"pipeline {self.text!r}: {later} cannot come after {earlier}: {reason}"
                )
        trained = "".join(letter for letter in self.text if OPERATORS[letter].kind in _OF_THE_MODEL)
        inference = "".join(sorted(letter for letter in self.text if OPERATORS[letter].kind == "inference"))
        object.__setattr__(self, "text", (trained or "O") + inference)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pipeline such as ``DEPLQ``.

        Raises:
            InvalidPipeline: the text breaks a rule; the message says which one.
        """
        return cls(text)

    def __str__(self) -> str:
        return self.text

    @property
    def trained(self) -> str:
        """The part that has weights of its own, ``O`` where nothing is trained: ``{pipeline}`` in paths."""
        return "".join(letter for letter in self.text if OPERATORS[letter].kind != "inference")

    @property
    def inference(self) -> str:
        """The letters that only change how the model is run, in the order L, Q; may be empty."""
        return self.text.removeprefix(self.trained)

    @property
    def operator(self) -> str:
        """The letter of the last trained operator; ``O`` where nothing is trained."""
        return self.trained[-1]

    @property
    def operators(self) -> str:
        """The set of its trained operators, ``O`` where nothing is trained: ``DPE`` for EDP."""
        return "".join(letter for letter in OPERATORS if letter in self.trained)

    @property
    def transformed(self) -> bool:
        """Whether its trainings start from other backbones and data than O's."""
        return any(OPERATORS[letter].kind == "transforms" for letter in self.trained)

    @property
    def has_exits(self) -> bool:
        """Whether its model has a classifier before the last layer."""
        return any(OPERATORS[letter].adds_exits for letter in self.trained)

    @property
    def parent(self) -> Self | None:
        """The trained pipeline that the last trained operator starts from; None where nothing is trained."""
        if self.operator == "O":
            return None
        return type(self)(self.trained[:-1] or "O")


def orderings(operators: str) -> list[Pipeline]:
    """List every valid ordering of a set of operators, sorted: ``DPE`` gives DEP, DPE and EDP.

    Raises:
        InvalidPipeline: a letter is unknown or occurs twice.
    """
    _check_letters(operators, what="operator set")
    return sorted({Pipeline("".join(order)) for order in permutations(operators) if _is_valid(order)})


def parse_operator_set(text: str) -> str:
    """Read a set of operators whose order is to be studied; the letters may come in any order.

    Returns:
        The letters in the order of ``OPERATORS``: ``EP`` becomes ``PE``.

    Raises:
        InvalidPipeline: a letter is unknown or occurs twice, or fewer than two orderings are valid.
    """
    found = orderings(text)
    if not found:
        raise InvalidPipeline(f"operator set {text!r} has no valid ordering; remove one of its operators")
    if len(found) == 1:
        raise InvalidPipeline(
            f"operator set {text!r} has only one ordering ({found[0]}), which leaves nothing to compare; "
            "name a set with two, such as 'DE'"
        )
    return "".join(letter for letter in OPERATORS if letter in text)


def trained_pipelines() -> list[str]:
    """List every valid trained pipeline: O, and each ordering of each set of trained operators."""
    letters = [letter for letter, operator in OPERATORS.items() if operator.kind in _OF_THE_MODEL]
    sets = ("".join(chosen) for size in range(1, len(letters) + 1) for chosen in combinations(letters, size))
    return ["O", *(str(order) for operators in sets for order in orderings(operators))]


def parts_of(operators: str) -> list[str]:
    """List what the tradeoff of a set of E with D, P or both is estimated from (Xin et al. 2022, section 6).

    Returns:
        O, then D and P where they are in the set, then E.
    """
    return ["O", *operators.replace("E", ""), "E"]


def closure(pipelines: Iterable[Pipeline]) -> list[Pipeline]:
    """List all that must be trained for ``pipelines``: every trained prefix once, parents first.

    Returns:
        Pipelines without inference operators, by number of trained operators and then by text.
    """
    found: set[Pipeline] = set()
    for pipeline in pipelines:
        step: Pipeline | None = Pipeline(pipeline.trained)
        while step is not None:
            found.add(step)
            step = step.parent
    return sorted(found, key=lambda p: (p.trained != "O", len(p.trained), p.text))


def _is_valid(letters: Iterable[str]) -> bool:
    return not any(OPERATORS[b].refuses(OPERATORS[a]) for a, b in combinations(letters, 2))


def _check_letters(text: str, *, what: str) -> None:
    if not text:
        raise InvalidPipeline(f"{what} is empty; write one letter per operator, such as 'DE'")
    for letter in text:
        if letter.upper() in OPERATORS and letter not in OPERATORS:
            raise InvalidPipeline(f"{what} {text!r}: letters are upper-case; write {text.upper()!r}")
        if letter not in OPERATORS:
            raise InvalidPipeline(
                f"{what} {text!r}: unknown letter {letter!r}; known are {', '.join(OPERATORS)}"
            )
        if text.count(letter) > 1:
            raise InvalidPipeline(f"{what} {text!r}: {letter} occurs twice; every letter may occur once")

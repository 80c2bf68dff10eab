"""The vocabulary that V left: which tokens of the pretrained one, and what that makes of a model's shape."""

import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeops.models.shape import ModelShape
from pipeops.reading import reading

VOCABULARY = "vocabulary.json"
"""Name of its file, beside a backbone that has it."""
_AGAIN = "make it again by `pipeops vocabulary`"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens that are kept. Their order stays, and their places are their new ids."""

    kept: tuple[int, ...]
    """Ids that they had, ascending."""
    before: int
    """Rows that the table of embeddings had."""

    def new(self, old: int) -> int:
        """The new id of a kept token.

        Raises:
            ValueError: it is not kept.
        """
        place = bisect_left(self.kept, old)
        if self.kept[place : place + 1] != (old,):
            raise ValueError(f"token {old} is not kept")
        return place

    def applied(self, shape: ModelShape) -> ModelShape:
        """The shape of a model that knows the kept tokens only."""
        return _with_tokens(shape, len(self.kept), self.new)

    def undone(self, shape: ModelShape) -> ModelShape:
        """The shape that such a model had."""
        return _with_tokens(shape, self.before, self.kept.__getitem__)

    def to_json(self) -> str:
        """What :func:`read_vocabulary` reads."""
        return json.dumps({"before": self.before, "kept": self.kept}) + "\n"


def _with_tokens(shape: ModelShape, size: int, renamed: Callable[[int], int]) -> ModelShape:
    pad, sep = renamed(shape.pad_token_id), renamed(shape.sep_token_id)
    return replace(shape, vocab_size=size, pad_token_id=pad, sep_token_id=sep)


def has_vocabulary(folder: Path) -> bool:
    """Whether a backbone is one that V made."""
    return (folder / VOCABULARY).is_file()


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of a backbone that V made.

    Raises:
        PipeOpsError: there is none, or it is damaged.
    """
    absent = "V needs a backbone that `pipeops vocabulary` wrote"
    with reading(folder / VOCABULARY, absent=absent, wrong="no vocabulary", again=_AGAIN):
        found = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        kept, before = tuple(map(int, found["kept"])), int(found["before"])
        if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= before:
            raise ValueError("tokens that were not there")
        return Vocabulary(kept, before)

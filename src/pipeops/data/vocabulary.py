"""Which tokens texts need, and the tokenizer that knows no others: V's part before any model.

A text whose tokens are kept tokenises to the same pieces, whatever else is dropped:

- WordLevel looks words up.
- WordPiece takes the longest piece that fits, and that is kept. Of a word that it does not know the pieces
  before the place where none fits are kept too, or another cut might succeed.
- BPE merges the pair that was learned first. All merges that make the text's tokens are kept, so at every
  step the first of the pairs that could be merged is the same.
- Unigram takes the best path. That is kept, and others only go. Scores stay, the lowest too: an unknown
  character counts as ten less.

Other texts still tokenise, into shorter pieces: characters are kept, or bytes where a tokenizer falls back on
them. Kept tokens keep their order. So special tokens in front keep their ids.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pipeops.errors import PipeOpsError
from pipeops.reading import reading

Content = Mapping[str, Any]
"""Of a ``tokenizer.json``, or of a part of it."""
Texts = Callable[[], Iterable[Sequence[str]]]
"""Gives texts, some at a time, from the beginning at every call."""
REMEDY = "leave V out of operator_sets and pipelines"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Kind:
    """A kind of tokenizer, by the ``model`` of its ``tokenizer.json``."""

    def __init__(self, model: Content) -> None:
        self.model = model

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Tokens with their ids."""
        return self.model["vocab"]

    @property
    def unknown(self) -> int | None:
        """Id of the token for what is not known."""
        return self.ids.get(self.model.get("unk_token") or "")

    @property
    def needed(self) -> Iterator[int]:
        """What the tokenizer needs to take any text."""
        if self.unknown is not None:
            yield self.unknown
        is_needed = _BYTE.fullmatch if self.model.get("byte_fallback") else self._is_character
        yield from (number for token, number in self.ids.items() if is_needed(token))

    def _is_character(self, token: str) -> bool:
        return len(token) == 1

    def parts(self, token: str) -> Iterable[str]:  # noqa: ARG002
        """What a token is made of."""
        return ()

    def tried(self, tokenizer: Tokenizer, text: str) -> Iterable[str]:  # noqa: ARG002
        """Pieces that lead to the unknown words of a text."""
        return ()

    def renumbered(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The model with these ids only, and each as its new one."""
        vocab = {token: new[number] for token, number in self.ids.items() if number in new}
        return {**self.model, "vocab": vocab}


class WordLevel(Kind):
    """A token per word. An unknown word is never cut."""

    def _is_character(self, token: str) -> bool:  # noqa: ARG002
        return False


class WordPiece(Kind):
    """Words, cut greedily."""

    @property
    def _prefix(self) -> str:
        return self.model["continuing_subword_prefix"]

    def _is_character(self, token: str) -> bool:
        return len(token.removeprefix(self._prefix)) == 1

    def tried(self, tokenizer: Tokenizer, text: str) -> Iterator[str]:
        """The pieces of each word up to the place where none fits."""
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        words = [(text, None)]
        if tokenizer.pre_tokenizer is not None:
            words = tokenizer.pre_tokenizer.pre_tokenize_str(text)
        for word, _ in words:
            start = 0
            while start < len(word):
                ends = range(len(word), start, -1)
                pieces = (self._prefix * (start > 0) + word[start:end] for end in ends)
                piece = next((piece for piece in pieces if piece in self.ids), None)
                if piece is None:
                    break
                yield piece
                start += len(piece) - len(self._prefix) * (start > 0)


class BytePairs(Kind):
    """Words made of characters, or of bytes, by merging pairs."""

    @property
    def _prefix(self) -> str:
        return self.model.get("continuing_subword_prefix") or ""

    @property
    def _suffix(self) -> str:
        return self.model.get("end_of_word_suffix") or ""

    def _is_character(self, token: str) -> bool:
        return len(token.removeprefix(self._prefix).removesuffix(self._suffix)) == 1

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {(left, right): rank for rank, (left, right) in enumerate(self.model["merges"])}

    def _merged(self, left: str, right: str) -> str:
        return left + right.removeprefix(self._prefix)

    def parts(self, token: str) -> Iterator[str]:
        """Everything between its characters and itself, in the one way in which it is merged."""
        begins = token.startswith(self._prefix) and self._prefix != ""
        ends = token.endswith(self._suffix) and self._suffix != ""
        characters = token.removeprefix(self._prefix * begins).removesuffix(self._suffix * ends)
        symbols = [self._prefix * (begins or place > 0) + one for place, one in enumerate(characters)]
        if ends and symbols:
            symbols[-1] += self._suffix
        yield from symbols
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, math.inf) for pair in pairwise(symbols)]
            place = ranks.index(min(ranks))
            if ranks[place] == math.inf:
                return
            symbols[place : place + 2] = [self._merged(symbols[place], symbols[place + 1])]
            yield symbols[place]

    def renumbered(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The same, with the merges of which all three tokens are left."""
        model = super().renumbered(new)
        left = model["vocab"]
        merges = [pair for pair in self.model["merges"] if {*pair, self._merged(*pair)} <= left.keys()]
        return {**model, "merges": merges}


class Unigram(Kind):
    """Texts, cut so that the sum of the pieces' scores is largest."""

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Tokens with their places."""
        return {token: number for number, (token, _) in enumerate(self.model["vocab"])}

    @property
    def unknown(self) -> int | None:
        """Place of the token for what is not known."""
        return self.model["unk_id"]

    @property
    def needed(self) -> Iterator[int]:
        """The same, and the lowest score, from which that of unknown characters is taken."""
        yield from super().needed
        scores = [score for _, score in self.model["vocab"]]
        yield scores.index(min(scores))

    def renumbered(self, new: Mapping[int, int]) -> dict[str, Any]:
        """The pieces that are left, with their scores."""
        vocab = [piece for number, piece in enumerate(self.model["vocab"]) if number in new]
        unknown = None if self.unknown is None else new[self.unknown]
        return {**self.model, "vocab": vocab, "unk_id": unknown}


KINDS: Mapping[str, type[Kind]] = {
    "BPE": BytePairs,
    "WordPiece": WordPiece,
    "Unigram": Unigram,
    "WordLevel": WordLevel,
}


def kind_of(content: Content, source: str) -> Kind:
    """The kind of a tokenizer.

    Args:
        content: of its ``tokenizer.json``.
        source: of the tokenizer, for messages.

    Raises:
        PipeOpsError: V does not know it.
    """
    kind = content["model"]["type"]
    if kind not in KINDS:
        raise PipeOpsError(
            f"{source}: V cannot remap a tokenizer of kind {kind}, only {', '.join(KINDS)}; {REMEDY}"
        )
    return KINDS[kind](content["model"])


def refuse_other_kind(path: Path) -> None:
    """Look at a ``tokenizer.json`` before it is loaded.

    Raises:
        PipeOpsError: V does not know its kind.
    """
    with reading(path, wrong="not a tokenizer", again="fetch the model again"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "type" in content["model"]:  # older files do not say it
            kind_of(content, str(path))


def used_tokens(tokenizer: Tokenizer, texts: Texts, source: str) -> set[int]:
    """The tokens that texts are cut into, and those that their unknown words are tried with."""
    kind, plain = kind_of(_content(tokenizer), source), _plain(tokenizer)
    used: set[int] = set()
    for some in _some(texts):
        for text, encoding in zip(some, plain.encode_batch_fast(some, add_special_tokens=False), strict=True):
            used.update(encoding.ids)
            if kind.unknown in encoding.ids:
                used.update(kind.ids[piece] for piece in kind.tried(plain, text))
    return used


def kept_tokens(
    tokenizer: Tokenizer, used: Iterable[int], source: str, *, size: int | None = None
) -> list[int]:
    """The tokens that are kept, ascending: used ones, special ones, and those that any text needs.

    Args:
        tokenizer: whose.
        used: ids that are wanted.
        source: of the tokenizer, for messages.
        size: at least so many are kept; the first of the others fill up.

    Raises:
        PipeOpsError: V cannot remap this tokenizer.
    """
    content = _content(tokenizer)
    kind = kind_of(content, source)
    kept = {*used, *kind.needed}
    kept |= _named(content, source)
    unused = (number for number in sorted(kind.ids.values()) if number not in kept)
    kept.update(islice(unused, max(0, (size or 0) - len(kept))))
    asked = kept - {token["id"] for token in content["added_tokens"]}
    parts = {part for token, number in kind.ids.items() if number in asked for part in kind.parts(token)}
    return sorted(kept | {kind.ids[part] for part in parts & kind.ids.keys()})


def remapped(tokenizer: Tokenizer, kept: Sequence[int], source: str) -> Tokenizer:
    """The tokenizer that knows these tokens only; their places are their ids.

    Raises:
        PipeOpsError: V cannot remap this tokenizer.
    """
    content, new = _content(tokenizer), {number: place for place, number in enumerate(kept)}
    changed = _renumbered(content, new.__getitem__, source)
    return Tokenizer.from_str(json.dumps({**changed, "model": kind_of(content, source).renumbered(new)}))


def refuse_other_pieces(
    before: Tokenizer, after: Tokenizer, kept: Sequence[int], texts: Texts, source: str
) -> None:
    """Compare the pieces of texts before and after V.

    Raises:
        PipeOpsError: a text has others.
    """
    one, other = _plain(before), _plain(after)
    for some in _some(texts):
        pairs = (each.encode_batch_fast(some) for each in (one, other))
        for text, was, now in zip(some, *pairs, strict=True):
            if was.ids != [kept[number] for number in now.ids]:
                raise PipeOpsError(
                    f"{source}: V cannot remap its tokenizer: {text[:50]!r} would have other pieces; {REMEDY}"
                )


def _content(tokenizer: Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither cuts nor pads."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _some(texts: Texts) -> Iterator[list[str]]:
    from pipeops.data.tokenised import few_characters  # with numpy; the Snakefile looks at kinds only

    for batch in texts():
        for (some,) in few_characters([batch]):
            yield some


def _named(content: Content, source: str) -> set[int]:
    """Ids that a tokenizer names outside its model."""
    found: list[int] = []

    def note(number: int) -> int:
        found.append(number)
        return number

    _renumbered(content, note, source)
    return set(found)


def _renumbered(content: Content, number: Callable[[int], int], source: str) -> dict[str, Any]:
    """A tokenizer's content with other ids everywhere but in its model."""
    padding = content["padding"]
    return {
        **content,
        "added_tokens": [{**token, "id": number(token["id"])} for token in content["added_tokens"]],
        "post_processor": _processor(content["post_processor"], number, source),
        "padding": padding and {**padding, "pad_id": number(padding["pad_id"])},
    }


def _processor(step: Content | None, number: Callable[[int], int], source: str) -> Content | None:
    """What puts special tokens around texts, with other ids."""
    if step is None or step["type"] == "ByteLevel":
        return step
    if step["type"] == "Sequence":
        return {**step, "processors": [_processor(one, number, source) for one in step["processors"]]}
    if step["type"] == "TemplateProcessing":
        tokens = {
            name: {**token, "ids": [number(one) for one in token["ids"]]}
            for name, token in step["special_tokens"].items()
        }
        return {**step, "special_tokens": tokens}
    if step["type"] in ("RobertaProcessing", "BertProcessing"):
        ends = {end: [step[end][0], number(step[end][1])] for end in ("sep", "cls")}
        return {**step, **ends}
    raise PipeOpsError(f"{source}: V cannot remap a post-processor of kind {step['type']}; {REMEDY}")

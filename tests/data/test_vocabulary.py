"""What V keeps of a tokenizer: same pieces for the texts that it was pruned to, and some for any other."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tokenizers import NAMES, SPECIAL, TOKENIZERS, words_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeops.data.vocabulary import (
    KINDS,
    kept_tokens,
    refuse_other_kind,
    refuse_other_pieces,
    remapped,
    used_tokens,
)
from pipeops.errors import PipeOpsError

STRANGE = ["", " ", "Zebra!", "Привет", "日本語", "🙂🙃", "a\u0301", "<s> x </s>", "e" * 200, "\x00\t\n"]
"""Texts that no tokenizer here was made from."""


def pruned(tokenizer: Tokenizer, texts: list[str], **options) -> tuple[Tokenizer, list[int]]:
    used = used_tokens(tokenizer, lambda: [texts], "backbone")
    kept = kept_tokens(tokenizer, used, "backbone", **options)
    return remapped(tokenizer, kept, "backbone"), kept


def ids(tokenizer: Tokenizer, texts) -> list[list[int]]:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return [encoding.ids for encoding in copy.encode_batch(texts)]


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 60), free=st.lists(st.text(), max_size=5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_texts_have_the_pieces_that_they_had_and_all_others_some(name, seed, rows, free):
    tokenizer = TOKENIZERS[name]
    texts = [*words_of(seed, rows), *free]
    fewer, kept = pruned(tokenizer, texts)
    assert len(kept) < tokenizer.get_vocab_size()
    assert fewer.get_vocab_size() == len(kept)
    again = [[kept[number] for number in row] for row in ids(fewer, texts)]
    assert again == ids(tokenizer, texts)
    refuse_other_pieces(tokenizer, fewer, kept, lambda: [texts], "backbone")
    others = [*words_of(seed + 1, 20), *STRANGE]
    for was, now in zip(ids(tokenizer, others), ids(fewer, others), strict=True):
        assert max(now) < len(kept)
        assert (len(was) > 2) == (len(now) > 2)  # more than the special tokens around it


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_stay_what_they_are(name):
    tokenizer = TOKENIZERS[name]
    fewer, kept = pruned(tokenizer, ["a"])
    assert [fewer.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3]
    before, after = (json.loads(one.to_str()) for one in (tokenizer, fewer))
    mask = fewer.token_to_id("<mask>")
    assert mask == len(kept) - 1
    assert kept[mask] == tokenizer.token_to_id("<mask>")
    for part in ("normalizer", "pre_tokenizer", "decoder", "truncation", "padding", "post_processor"):
        assert before[part] == after[part], part  # all name ids that stay
    [was, now] = ([{**token, "id": 0} for token in one["added_tokens"]] for one in (before, after))
    assert was == now
    assert fewer.encode("a", "b").type_ids == tokenizer.encode("a", "b").type_ids


def test_ids_that_change_change_everywhere():
    tokenizer = Tokenizer(
        models.WordPiece(
            {"unused": 0, "[UNK]": 1, "a": 2, "[CLS]": 3, "[SEP]": 4, "[PAD]": 5}, unk_token="[UNK]"
        )
    )
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]", "[UNK]"])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.enable_padding(pad_id=5, pad_token="[PAD]", length=6)
    for processor in (
        processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3)),
        processors.RobertaProcessing(("[SEP]", 4), ("[CLS]", 3)),
        processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]),
        processors.Sequence([processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))]),
    ):
        tokenizer.post_processor = processor
        fewer, kept = pruned(tokenizer, ["a"])
        assert kept == [1, 2, 3, 4, 5]
        assert fewer.encode("a x").ids == [2, 1, 0, 3, 4, 4]
        assert fewer.encode("a x").tokens == tokenizer.encode("a x").tokens


def test_bytes_or_characters_are_kept_and_nothing_else_that_is_not_used():
    vocabulary = {name: pruned(TOKENIZERS[name], ["ab"])[0].get_vocab() for name in NAMES}
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    assert alphabet <= vocabulary["byte-level BPE"].keys()
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= vocabulary["BPE with byte fallback"].keys()
    assert vocabulary["WordLevel"].keys() == {*SPECIAL, "<mask>"}  # "ab" is unknown to it
    whole = TOKENIZERS["WordPiece"].get_vocab()
    assert {token for token in whole if len(token.removeprefix("##")) == 1} <= vocabulary["WordPiece"].keys()


def test_merges_are_kept_with_all_that_they_are_made_of():
    merges = [("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc"), ("x", "y"), ("xy", "abc")]
    tokens = ["a", "b", "c", "x", "y", "ab", "abc", "bc", "xy", "xyabc"]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    fewer, kept = pruned(tokenizer, ["abc"])
    assert [tokens[number] for number in kept] == ["a", "b", "c", "x", "y", "ab", "abc"]
    assert json.loads(fewer.to_str())["model"]["merges"] == [["a", "b"], ["ab", "c"]]
    assert fewer.encode("xyabc").tokens == ["x", "y", "abc"]


def test_a_word_that_wordpiece_does_not_know_stays_unknown():
    """Without "abc", which fits it first, it would become "a", "##b" and "##cX"."""
    vocabulary = {"[UNK]": 0, "abc": 1, "a": 2, "##b": 3, "##c": 4, "##cX": 5}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert tokenizer.encode("abcX").ids == [0]
    assert tokenizer.encode("acX").ids == [2, 5]
    fewer, kept = pruned(tokenizer, ["abcX", "acX"])
    assert 1 in kept
    assert fewer.encode("abcX").tokens == ["[UNK]"]


def test_the_score_of_unknown_characters_stays():
    """With a lowest score of -1 and not of -20, "é" would be cut off the piece that it is in."""
    vocabulary = [("<unk>", 0.0), ("a", -1.0), ("éb", -15.0), ("b", -1.0), ("zz", -20.0), ("z", -1.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    assert tokenizer.encode("aéb").tokens == ["a", "éb"]
    fewer, kept = pruned(tokenizer, ["aéb"])
    assert fewer.encode("aéb").tokens == ["a", "éb"]
    assert 4 in kept


@pytest.mark.parametrize("name", NAMES)
def test_a_size_is_filled_up_from_the_beginning(name):
    tokenizer = TOKENIZERS[name]
    _, least = pruned(tokenizer, ["ab a"])
    _, more = pruned(tokenizer, ["ab a"], size=len(least) + 10)
    assert len(more) >= len(least) + 10
    assert set(least) <= set(more)
    added = sorted(set(more) - set(least))
    assert added[0] == min(set(range(tokenizer.get_vocab_size())) - set(least))
    _, all_of_it = pruned(tokenizer, ["ab a"], size=10**6)
    assert all_of_it == list(range(tokenizer.get_vocab_size()))


def test_what_cannot_be_remapped_is_refused_in_one_line(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    whole = json.loads(tokenizer.to_str())
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(whole | {"model": whole["model"] | {"type": "Morphemes"}}))
    with pytest.raises(PipeOpsError) as caught:
        refuse_other_kind(path)
    assert str(caught.value) == (
        f"{path}: V cannot remap a tokenizer of kind Morphemes, only {', '.join(KINDS)}; "
        "leave V out of operator_sets and pipelines"
    )
    path.write_text(json.dumps(whole))
    refuse_other_kind(path)
    other = remapped(tokenizer, [0, 2], "backbone")
    with pytest.raises(PipeOpsError, match="backbone: V cannot remap its tokenizer: 'a b' would have other"):
        refuse_other_pieces(tokenizer, other, [0, 2], lambda: [["b", "a b"]], "backbone")

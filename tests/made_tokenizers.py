"""Small tokenizers of every kind that V knows, and texts for them."""

import json
import random
from pathlib import Path

from helpers import tiny_encoder_config
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

LETTERS = "abcdeäß語😀"


def words_of(seed: int, count: int = 400) -> list[str]:
    """Texts of made-up words, which share their beginnings and ends."""
    drawn = random.Random(seed)
    stems = ["".join(drawn.choices(LETTERS, k=drawn.randint(1, 4))) for _ in range(25)]
    return [
        " ".join("".join(drawn.choices(stems, k=drawn.randint(1, 3))) for _ in range(drawn.randint(1, 6)))
        for _ in range(count)
    ]


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
NO_RULES = (1024).to_bytes(4, "little") + bytes(1024)
"""Rules of a SentencePiece model that change no character."""
TEMPLATE = {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"}


def trained(kind: str, *, size: int = 300) -> Tokenizer:
    """A tokenizer of a kind, with what the encoders' own ones have around it."""
    options = {"vocab_size": size, "special_tokens": SPECIAL, "show_progress": False}
    if kind == "byte-level BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options | {"vocab_size": 256 + size})
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    elif kind == "BPE with byte fallback":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        special = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(**options | {"vocab_size": 256 + size, "special_tokens": special})
    elif kind == "BPE of characters":
        tokenizer = Tokenizer(
            models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.BpeTrainer(
            limit_alphabet=12, continuing_subword_prefix="##", end_of_word_suffix="</w>", **options
        )
    elif kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(limit_alphabet=14, **options)
        tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    elif kind == "Unigram":
        tokenizer = Tokenizer(models.Unigram())
        steps = (
            normalizers.Precompiled(NO_RULES),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        )
        tokenizer.normalizer = normalizers.Sequence(list(steps))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **options)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(min_frequency=2, **options)
    tokenizer.train_from_iterator(words_of(0), trainer)
    if kind == "BPE with byte fallback":  # bytes are no special tokens
        content = json.loads(tokenizer.to_str())
        content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] in SPECIAL]
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    if tokenizer.post_processor is None:
        ends = [("<s>", 0), ("</s>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(**TEMPLATE, special_tokens=ends)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    tokenizer.enable_truncation(9)
    return tokenizer


NAMES = (
    "byte-level BPE",
    "BPE with byte fallback",
    "BPE of characters",
    "WordPiece",
    "Unigram",
    "WordLevel",
)
TOKENIZERS = {name: trained(name) for name in NAMES}


def write_base(folder: Path, family: str, kind: str, *, layers: int = 4, seed: int = 7) -> Path:
    """A random encoder with one of the tokenizers."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    from pipeops.models.backbones import save_backbone

    tokenizer = TOKENIZERS[kind]
    sizes = {"vocab_size": tokenizer.get_vocab_size() + 3, "initializer_range": 0.3}
    config = tiny_encoder_config(family, layers=layers, pad_token_id=1, **sizes)
    special = {"pad": "<pad>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    tokens = {f"{name}_token": token for name, token in special.items()}
    torch.manual_seed(seed)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=22, **tokens)
    save_backbone(AutoModel.from_config(config), fast, folder)
    return folder

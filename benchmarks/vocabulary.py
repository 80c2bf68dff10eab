"""What V saves on a multilingual encoder: XLM-RoBERTa-base's shape and vocabulary, with random weights.

    python benchmarks/vocabulary.py  # 250,002 tokens, 12 layers of 768; 4 GB of memory, some minutes
    python benchmarks/vocabulary.py --vocab 3000 --layers 2 --hidden 64 --rows 20 --rounds 1 --threads 1

The tokenizer is a Unigram model as SentencePiece makes them, of made-up words in seven scripts. The texts are
words of one of them, so V keeps those and every single character. Sizes are those of the exported files.
Loading is timed in turns, with the files in the system's cache; medians are shown. Then each row is run by
itself, and the logits of O and V are compared.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import Runs, interleaved, introduce
from rich.console import Console
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from pipeops.integrity import sealed_folder
from pipeops.models.backbones import WEIGHTS, load_backbone, load_tokenizer, save_backbone
from pipeops.models.multi_exit import from_pretrained_backbone
from pipeops.models.vocabulary import read_vocabulary
from pipeops.onnx.export import export
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler
from pipeops.operators.builtin import VocabularySection
from pipeops.operators.vocabulary import prune_backbones, with_tokens
from pipeops.text import markdown_table

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
SCRIPTS = {
    "Latin": (0x61, 0x7A),
    "Greek": (0x3B1, 0x3C9),
    "Cyrillic": (0x430, 0x44F),
    "Arabic": (0x627, 0x64A),
    "Devanagari": (0x905, 0x939),
    "Hangul": (0xAC00, 0xB3FF),
    "Han": (0x4E00, 0x62FF),
}
"""First and last letter of each."""
TEXTS_IN = "Latin"
LONGEST = 64
PRECISIONS = {"fp32": False, "int8": True}


def main() -> None:
    args = arguments()
    console = Console(width=200)
    introduce(console, threads=args.threads)
    torch.set_num_threads(args.threads)
    texts = corpus(args.rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, texts, args)
        graphs = [f"onnx/model{suffix}.onnx" for suffix in ("", "-int8")]
        rows = [
            ["tokens", *(f"{len(load_tokenizer(folder / one)):,}" for one in "OV")],
            *(megabytes(folder, file) for file in ("tokenizer.json", WEIGHTS, *graphs)),
            *load_times(folder, args),
        ]
        print(markdown_table(["", "O", "V", "V / O"], [with_ratio(row) for row in rows]))
        compare(folder, texts, args.threads)


def words(script: str) -> Iterator[str]:
    """Made-up words without end, the same on every run."""
    first, last = SCRIPTS[script]
    random = np.random.default_rng(first)
    while True:
        yield "".join(map(chr, random.integers(first, last + 1, random.integers(2, 9))))


def tokenizer(size: int) -> Tokenizer:
    """A Unigram tokenizer of so many tokens: special ones, characters, then words and their ends."""
    characters = [chr(code) for first, last in SCRIPTS.values() for code in range(first, last + 1)]
    pieces = dict.fromkeys((*SPECIAL, "▁", *characters[: size // 4]))
    sources = [words(script) for script in SCRIPTS]
    while len(pieces) < size - 1:
        for word in map(next, sources):
            for piece in (f"▁{word}", word[len(word) // 2 :]):
                if len(pieces) < size - 1:
                    pieces.setdefault(piece)
    scores = [
        (piece, 0.0 if piece in SPECIAL else -4 - 0.7 * math.log1p(rank)) for rank, piece in enumerate(pieces)
    ]
    made = Tokenizer(Unigram([*scores, ("<mask>", 0.0)], unk_id=3))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    made.add_special_tokens([*SPECIAL, AddedToken("<mask>", lstrip=True)])
    return made


def corpus(rows: int) -> list[str]:
    """Texts of 5 to 30 words, some often and most seldom."""
    random, source = np.random.default_rng(1), words(TEXTS_IN)
    known = [next(source) for _ in range(20_000)]
    return [
        " ".join(known[min(int(rank), len(known)) - 1] for rank in random.zipf(1.3, random.integers(5, 31)))
        for _ in range(rows)
    ]


def write_models(folder: Path, texts: list[str], args: argparse.Namespace) -> None:
    """Put O and V into folders of these names, each with its tokenizer and its export."""
    torch.manual_seed(0)
    base, pruned = folder / "base", folder / "pruned"
    config = XLMRobertaConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        intermediate_size=4 * args.hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    special = {"bos": "<s>", "cls": "<s>", "pad": "<pad>", "eos": "</s>", "sep": "</s>", "unk": "<unk>"}
    named = {f"{name}_token": token for name, token in special.items()}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(args.vocab), model_max_length=512, mask_token="<mask>", **named
    )
    save_backbone(XLMRobertaModel(config), fast, base)
    prune_backbones(base, {base: pruned}, lambda: [texts], VocabularySection())
    model = from_pretrained_backbone(load_backbone(base), sep_token_id=2, labels=["no", "yes"])
    for name, source in (("O", base), ("V", pruned)):
        if name == "V":
            model = with_tokens(model, read_vocabulary(pruned))
        model.config.pipeline = name
        with sealed_folder(folder / name, last=WEIGHTS) as written:
            load_tokenizer(source).save_pretrained(written)
            model.save_pretrained(written)
        export(folder / name, folder / name / "onnx")


def megabytes(folder: Path, file: str) -> list[str]:
    """A row: the size of a file of O and of V."""
    return [f"{Path(file).name}, MB", *(f"{(folder / one / file).stat().st_size / 1e6:.1f}" for one in "OV")]


def load_times(folder: Path, args: argparse.Namespace) -> Iterator[list[str]]:
    """Rows: seconds from the file to a tokenizer, or to a model that can be run."""
    files = {one: str(folder / one / "tokenizer.json") for one in "OV"}
    tokenizers = {one: partial(Tokenizer.from_file, file) for one, file in files.items()}
    yield timed("loading the tokenizer", tokenizers, args.rounds)
    for precision, quantised in PRECISIONS.items():
        graphs = {one: graph_path(folder / one / "onnx", "model", quantised=quantised) for one in "OV"}
        models = {
            one: partial(EarlyExitModel.load, graph, threads=args.threads) for one, graph in graphs.items()
        }
        yield timed(f"loading, {precision}", models, args.rounds)


def timed(what: str, runs: Runs, rounds: int) -> list[str]:
    times = interleaved(runs, rounds)
    return [f"{what}, s", *(f"{np.median(times[one]):.3f}" for one in "OV")]


def with_ratio(row: list[str]) -> list[str]:
    before, after = (float(cell.replace(",", "")) for cell in row[1:])
    return [*row, f"{after / before:.2f}"]


def compare(folder: Path, texts: list[str], threads: int) -> None:
    """Print how far the logits of O and V are apart, over all rows."""
    tokens = {}
    for one in "OV":
        encoded = load_tokenizer(folder / one)(texts, truncation=True, max_length=LONGEST)["input_ids"]
        tokens[one] = [np.array(ids) for ids in encoded]
    for precision, quantised in PRECISIONS.items():
        logits = {}
        for one in "OV":
            path = graph_path(folder / one / "onnx", "profile", quantised=quantised)
            profiler = Profiler.load(path, threads=threads)
            found = [profiler.run(ids[None], np.ones((1, len(ids)), np.int64)).logits for ids in tokens[one]]
            logits[one] = np.concatenate(found)[:, -1]
        apart, spread = abs(logits["V"] - logits["O"]), np.ptp(logits["O"], axis=0).max()
        same = np.mean(logits["V"].argmax(axis=-1) == logits["O"].argmax(axis=-1))
        print(
            f"{precision}: logits of {len(texts):,} rows differ by {apart.max():.2g} at most, where O's "
            f"spread over {spread:.2g}; {same:.1%} of the answers are the same"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=250_002, help="tokens")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768, help="a multiple of 64, a head's size")
    parser.add_argument("--rows", type=int, default=500, help="texts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()

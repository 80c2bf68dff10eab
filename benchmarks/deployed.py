"""A deployed folder against PyTorch and transformers: same labels, same tokens, and how fast it starts.

python benchmarks/deployed.py --encoder /path/to/minilm

The encoder gets an exit after every layer with random weights, whose labels are balanced by their biases.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from common import introduce
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from pipeops.integrity import seal
from pipeops.models.backbones import load_backbone, load_tokenizer
from pipeops.models.multi_exit import from_pretrained_backbone, with_all_exits
from pipeops.onnx.classify import Classifier
from pipeops.onnx.deploy import deploy, policy_of, read_trained, thresholds_per_exit
from pipeops.onnx.export import export
from pipeops.pipeline import Pipeline
from pipeops.provenance import write_json
from pipeops.text import markdown_table

LABELS = ("one", "two", "three", "four")
THRESHOLD = 1.01
"""Above 1: no input leaves early."""
LONG = 100_000
ODD = (
    *("", " ", "\t\r\n", "a\x00b\x07c\x1b[0m", "\u200b\ufeff\u2028\u202e", "e\u0301 \u0130 \u1e9e \ufdfd"),
    *("😀 👩‍👩‍👧 🏳️‍🌈", "日本語のテキスト", "العربية שלום", "ไทย हिन्दी 한국어", "don't 3.14 $% @#&*"),
    *("[CLS] [SEP] [MASK] [PAD] <s> </s> <mask>", "x" * 300, "word " * 400, "\U0001d518\U0001d52b\U0001d526"),
)  # fmt: skip
ALPHABETS = ((32, 127), (192, 600), (0x400, 0x500), (0x4E00, 0x5000), (0x1F600, 0x1F650), (0, 32))
"""Ranges of characters: ASCII, Latin, Cyrillic, Chinese, emoji, control characters."""
HEAVY = ("torch", "transformers", "pipeops")


def main() -> None:
    """Print what was measured; the exit status is 1 where a label or a token differs."""
    arguments = _arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts = list(random_texts(arguments.texts))
        make_checkpoint(arguments.encoder, folder / "checkpoint", texts[:100], arguments.max_length)
        export(folder / "checkpoint", folder / "onnx")
        deploy_never_early(folder, ("sentence",), arguments.max_length)
        introduce(Console(), threads=1)
        rows, same = [], True
        for row, right in (
            labels(folder, texts),
            tokens(folder, arguments.tokens, arguments.max_length, pairs=False),
            tokens(folder, arguments.tokens, arguments.max_length, pairs=True),
        ):
            rows.append(row)
            same &= right
        rows.append(starts(folder / "sentence", arguments.starts))
    print(markdown_table(["what", "found"], rows))
    sys.exit(not same)


def random_texts(count: int) -> Iterator[str]:
    """The odd texts, a long one, and words of random characters of several scripts: always the same."""
    rng = np.random.default_rng(0)
    yield from ODD[:count]
    for number in range(count - len(ODD)):
        words = []
        for _ in range(rng.integers(0, 60)):
            low, high = ALPHABETS[min(rng.geometric(0.6) - 1, len(ALPHABETS) - 1)]
            words.append("".join(map(chr, rng.integers(low, high, rng.integers(1, 9)))))
        text = " ".join(words)
        yield (text + " ") * (LONG // (len(text) + 1) + 1) if number == 0 else text


def make_checkpoint(encoder: Path, output: Path, texts: Sequence[str], max_length: int) -> None:
    """Write a model with random exits that answers every label about as often."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(encoder)
    original = from_pretrained_backbone(
        load_backbone(encoder), sep_token_id=tokenizer.sep_token_id, labels=LABELS, pooling="mean"
    )
    model = with_all_exits(original).eval()
    tokens = tokenizer(list(texts), truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    with torch.no_grad():
        for head in model.exits.values():
            head.out_proj.weight.mul_(20)
        answers = model(tokens["input_ids"], tokens["attention_mask"]).exit_logits
        for head, logits in zip(model.exits.values(), answers, strict=True):
            head.out_proj.bias.sub_(logits.mean(dim=0))
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    write_json(output / "config.json", json.loads((output / "config.json").read_text()) | {"pipeline": "E"})
    seal(output)


def deploy_never_early(folder: Path, columns: tuple[str, ...], max_length: int) -> None:
    """Deploy the export in fp32 with a threshold above 1, as ``folder`` / the first column's name."""
    pipeline = Pipeline("EL")
    trained = read_trained(folder / "checkpoint", folder / "onnx", pipeline=pipeline, seed=1)
    policy = policy_of(
        trained,
        pipeline,
        thresholds=thresholds_per_exit([THRESHOLD], trained.shape, trained.confidence),
        max_length=max_length,
        text_columns=columns,
    )
    deploy(trained, policy, folder / columns[0], card="")


def labels(folder: Path, texts: Sequence[str]) -> tuple[list[str], bool]:
    """Compare labels with PyTorch's, one text at a time."""
    classifier = Classifier(folder / "sentence")
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "checkpoint").eval()
    differing, furthest, counts = 0, 0.0, Counter()
    for text in texts:
        tokens = tokenizer(
            text, truncation="longest_first", max_length=classifier.max_length, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(tokens["input_ids"], tokens["attention_mask"]).logits[0]
        answer, expected = classifier(text), model.config.id2label[int(logits.argmax())]
        differing += answer.label != expected or answer.exit_layer != model.config.num_hidden_layers
        furthest = max(furthest, abs(answer.confidence - float(logits.softmax(-1).max())))
        counts[expected] += 1
    shares = ", ".join(f"{name} {counts[name]}" for name in LABELS)
    found = (
        f"{len(texts) - differing:,} of {len(texts):,} ({shares}); probability off by {furthest:.1e} at most"
    )
    return [f"labels equal PyTorch's, fp32, threshold {THRESHOLD}", found], not differing


def tokens(folder: Path, count: int, max_length: int, *, pairs: bool) -> tuple[list[str], bool]:
    """Compare token ids with ``AutoTokenizer``'s on single texts, or on pairs."""
    classifier = Classifier(folder / "sentence")
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
    texts = list(random_texts(count))
    others = np.random.default_rng(1).permutation(len(texts))
    differing = longest = 0
    for index, text in enumerate(texts):
        given = (text, texts[others[index]]) if pairs else (text,)
        # In lists, as in training: a single empty second text would be taken for none.
        (expected,) = tokenizer(*([one] for one in given), truncation="longest_first", max_length=max_length)[
            "input_ids"
        ]
        differing += classifier.encode(*given)[0].tolist() != expected
        longest = max(longest, *map(len, given))
    what = "pairs" if pairs else "texts"
    found = f"{count - differing:,} of {count:,}; longest text {longest:,} characters"
    return [f"tokens of {what} equal AutoTokenizer's", found], not differing


def starts(folder: Path, count: int) -> list[str]:
    """Time whole runs of the script on one text; CPU time says how long they take on a quiet machine."""
    seconds, computing = [], []
    for _ in range(count + 1):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, str(folder / "classify.py"), "a text"], check=True, capture_output=True, env={}
        )
        seconds.append(time.perf_counter() - begun)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        computing.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    script = "import classify, sys; classify.main(['a text']); print(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env={}, cwd=folder
    )
    heavy = [name for name in HEAVY if name in run.stderr.split()]
    timed = seconds[1:]  # the first reads the files from disk
    found = (
        f"{statistics.median(timed):.2f} s (median of {count}, {min(timed):.2f} to {max(timed):.2f}), "
        f"{statistics.median(computing[1:]):.2f} s of CPU; imports of {', '.join(HEAVY)}: "
        f"{', '.join(heavy) or 'none'}"
    )
    return ["classify.py on one text", found]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, required=True, help="folder of a pretrained encoder")
    parser.add_argument("--texts", type=int, default=1000, help="texts whose labels are compared")
    parser.add_argument("--tokens", type=int, default=10_000, help="texts whose tokens are compared")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--starts", type=int, default=20, help="timed runs of the script")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What digests, and waiting for the disk, cost of a job: MiniLM with random weights, trained to deployed.

python benchmarks/integrity.py
"""

import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import introduce
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeops import cli, files, integrity
from pipeops.text import markdown_table

LAYERS, HIDDEN, VOCABULARY = 6, 384, 30522
EXAMPLES, TOKENS = 960, 26
SPENT: Counter[str] = Counter()


def main() -> None:
    """Run the jobs and print a row for each."""
    integrity._digest = timed(integrity._digest, "digests")
    files.flush = integrity.flush = timed(files.flush, "fsync")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder)
        write_backbone(study / "backbone")
        for split in ("train", "validation"):
            write_examples(study / f"data/{split}.parquet")
        training = {"training": {"epochs": 1, "batch_size": 32, "threads": 2}}
        model, onnx = study / "results/models/sst2/O/seed1", study / "results/onnx/sst2/O/seed1"
        answers = study / "results/answers/sst2/O/seed1.parquet"
        data = ["--data", f"{study}/data/validation.parquet"]
        about = ["--dataset", "sst2", "--seed", "1"]
        jobs = {
            "fetch the backbone": ["backbone", f"{study}/backbone", "--output", f"{study}/base"],
            f"train O, {EXAMPLES // 32} steps": [
                *("train", "O", "--backbone", f"{study}/base", "--data", f"{study}/data/train.parquet"),
                *("--output", str(model), "--seed", "1", "--state", f"{study}/state"),
                *("--settings", json.dumps(training)),
            ],
            "export": ["export", str(model), "--output", str(onnx)],
            f"evaluate, {EXAMPLES} inputs": [
                *("evaluate", str(onnx), *data, "--output", str(answers), "--pipeline", "O", *about)
            ],
            "deploy": ["deploy", "OL", f"{study}/deployed", "--results", f"{study}/results", *about],
        }
        for name, arguments in jobs.items():
            SPENT.clear()
            integrity._digest.__wrapped__.cache_clear()
            start = time.perf_counter()
            run(arguments)
            seconds = time.perf_counter() - start
            spent = [SPENT[what] for what in ("digests", "fsync")]
            shares = [f"{one:.3f} s ({one / seconds:.1%})" for one in spent]
            rows.append([name, f"{seconds:.1f} s", *shares])
        rows.append(["start `classify.py`", *starting(study / "deployed")])
    print(markdown_table(["job", "takes", "digests", "fsync"], rows))
    introduce(Console(), threads=2)


def timed(function, what: str):
    """The same, with its time added up."""

    @wraps(function)
    def call(*arguments):
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            SPENT[what] += time.perf_counter() - start

    call.__wrapped__ = function
    return call


def run(arguments: list[str]) -> None:
    """Run a command in this process; imports are part of it the first time only."""
    sys.argv = ["pipeops", *arguments]
    with quiet():
        try:
            cli.app()
        except SystemExit as end:
            if end.code:
                raise


@contextmanager
def quiet():
    """While open, nothing is printed."""
    out, sys.stdout = sys.stdout, open("/dev/null", "w")  # noqa: PTH123, SIM115
    try:
        yield
    finally:
        sys.stdout = out


def starting(folder: Path) -> list[str]:
    """Loading a deployed folder with and without its digests, medians of five."""
    from pipeops.onnx import classify

    check, times = classify._check_digests, {True: [], False: []}
    for _ in range(5):
        for checked, found in times.items():
            classify._check_digests = check if checked else lambda _: None
            start = time.perf_counter()
            classify.Classifier(folder)
            found.append(time.perf_counter() - start)
    classify._check_digests = check
    whole, bare = (float(np.median(times[checked])) for checked in (True, False))
    return [f"{whole:.2f} s", f"{whole - bare:.3f} s ({(whole - bare) / whole:.1%})", "-"]


def write_backbone(folder: Path) -> None:
    """A BERT of MiniLM's size and a tokenizer of words."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        intermediate_size=4 * HIDDEN,
    )
    BertModel(config).save_pretrained(folder)
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(VOCABULARY - 4))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)


def write_examples(path: Path) -> None:
    """Random tokens; SST-2's inputs have 26 on average with MiniLM's tokenizer in training."""
    random = np.random.default_rng(0)
    ids = [[1, *random.integers(4, VOCABULARY, TOKENS - 2).tolist(), 2] for _ in range(EXAMPLES)]
    about = {"labels": ["negative", "positive"], "pad_token_id": 0, "sep_token_id": 2, "max_length": 64}
    columns = {
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "label": pa.array([i % 2 for i in range(EXAMPLES)]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"pipeops": json.dumps(about)}), path)


if __name__ == "__main__":
    main()

"""What a study leaves of one tiny model with random weights, for the tests of deploying it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_encoder_config, tiny_model, write_examples
from measured import MAX_LENGTH, write_prices
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeops.data.tasks import TASKS
from pipeops.measuring.evaluate import evaluate
from pipeops.models.shape import ModelShape
from pipeops.onnx.deploy import deploy, policy_of, read_trained, thresholds_per_exit
from pipeops.onnx.export import export
from pipeops.pipeline import Pipeline

WORDS = 60
SINGLE, PAIR = "sst2", "mrpc"
NEVER = (1.5,)
"""A threshold at which no input leaves early."""
BOTH_LABELS = 5
"""A seed of random models of either family that answer no and yes."""


def word_tokenizer(family: str) -> Tokenizer:
    """Words w0 to w56 with the family's template, and a truncation and padding that must not matter."""
    pad = tiny_encoder_config(family).pad_token_id
    special = ["<pad>", "<s>"] if pad == 0 else ["<s>", "<pad>"]
    words = [*special, "</s>", *(f"w{number}" for number in range(WORDS - 3))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    tokenizer.add_special_tokens([*special, "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    sep, cls = ("</s>", 2), ("<s>", 1 - pad)
    if pad == 1:
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, False, False)
    else:
        tokenizer.post_processor = processors.BertProcessing(sep, cls)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=7)
    return tokenizer


def write_study(
    results: Path,
    pipeline: str,
    *,
    dataset: str = SINGLE,
    family: str = "roberta",
    confidence: str = "max_probability",
    answers: bool = True,
    prices: bool = True,
    **changes,
):
    """Checkpoint, export, answers and prices of seed 1 where the workflow leaves them; returns the model."""
    trained = Pipeline(pipeline).trained
    exits = Pipeline(pipeline).has_exits
    model = tiny_model(family, exits=exits, pipeline=trained, seed=BOTH_LABELS, **changes)
    checkpoint = results / "models" / dataset / trained / "seed1"
    model.save_pretrained(checkpoint)
    word_tokenizer(family).save(str(checkpoint / "tokenizer.json"))
    exported = results / "onnx" / dataset / trained / "seed1"
    export(checkpoint, exported, confidence=confidence)
    if answers:
        data = write_examples(
            results / "data" / "validation.parquet", rows=60, pad_token_id=model.config.pad_token_id
        )
        path = results / "answers" / dataset / trained / "seed1.parquet"
        path.parent.mkdir(parents=True)
        evaluate(exported, data, path, dataset=dataset, pipeline=trained, seed=1)
    if prices:
        shape = ModelShape.from_checkpoint(checkpoint)
        write_prices(results / "prices" / dataset / f"{Pipeline(pipeline).operators}.csv", shape)
    return model


@pytest.fixture(scope="module", name="results")
def results_of_ep(tmp_path_factory):
    """A study's results with EP, a model with exits, and nothing measured."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, "EP", answers=False, prices=False)
    return folder


def deployed(
    results: Path,
    pipeline: str,
    folder: Path,
    *,
    dataset=SINGLE,
    confidence="max_probability",
    thresholds=NEVER,
    max_length=MAX_LENGTH,
) -> Path:
    """Deploy seed 1 of a pipeline, with one threshold or one per exit but the last."""
    chosen = Pipeline(pipeline)
    place = Path(dataset, chosen.trained, "seed1")
    trained = read_trained(
        results / "models" / place,
        results / "onnx" / place,
        pipeline=chosen,
        seed=1,
        confidence=confidence,
    )
    policy = policy_of(
        trained,
        chosen,
        thresholds=thresholds_per_exit(thresholds, trained.shape, trained.confidence),
        max_length=max_length,
        text_columns=TASKS[dataset].columns,
    )
    deploy(trained, policy, folder, card="A card.\n")
    return folder


def random_texts(count: int, *, pair: bool, seed: int = 0) -> list[tuple[str, ...]]:
    """Inputs of up to twice the longest length."""
    rng = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(
            f"w{number}" for number in rng.integers(0, WORDS - 3, rng.integers(0, 2 * MAX_LENGTH))
        )

    return [(text(), text()) if pair else (text(),) for _ in range(count)]


def run_script(folder: Path, *arguments: str, text: bytes = b"") -> subprocess.CompletedProcess:
    """Run the folder's script as its user does, without this project's path."""
    command = [sys.executable, str(folder / "classify.py"), *arguments]
    return subprocess.run(command, input=text, capture_output=True, check=False, env={}, cwd=folder.parent)


def copied(folder: Path, output: Path) -> Path:
    shutil.copytree(folder, output)
    return output


def read_policy(folder: Path) -> dict:
    return json.loads((folder / "policy.json").read_text())

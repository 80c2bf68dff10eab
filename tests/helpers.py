"""Shared by the tests: tiny random models and data, and where real ones are, if they are."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeops.analysis.curves import TradeoffCurve
from pipeops.integrity import SUMS
from pipeops.models.families.registry import FAMILIES

ROOT = Path(__file__).parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
BIN = Path(sys.executable).parent

ANYWHERE = {
    "rounds": 5,
    "most_rounds": 100,
    "precision": 0.9,
    "unsteady": 1e6,
    "others": 1e6,
    "lengths": 2,
}
"""Prices taken whatever else runs: what is measured means nothing."""
STUDY = {
    "datasets": ["generated-sentiment"],
    "seeds": [1, 2],
    "operator_sets": ["DE"],
    "data": {"train_examples": 64, "validation_examples": 40},
    "training": {"epochs": 1, "batch_size": 16, "operators": {"O": {"epochs": 1}}},
    "costeff": {"compression": None, "heads": 2, "ffn": 16, "rank": 16},
    "measuring": {"thresholds": [0, 0.5, 0.52, 1.01]},
    "prices": ANYWHERE,
    "check": {"thresholds": 1, "examples": 5, "tolerance": 1e6},
}


DISTINCT = [name for name in FAMILIES if name not in ("xlm-roberta", "camembert")]
"""Families without those that are a RoBERTa under another name."""
NO_TOKENS = ("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")
TINY_SETTINGS = {
    "electra": {"embedding_size": 8},
    "modernbert": {"local_attention": 4} | dict.fromkeys(NO_TOKENS),
}
"""What a tiny encoder of a family has of its own."""


def tiny_encoder_config(family: str, *, layers: int = 4, hidden_size: int = 16, **changes):
    """Configuration of a tiny encoder as transformers has it."""
    from transformers import AutoConfig

    declared = FAMILIES[family]
    keys = declared.keys
    sizes = {
        keys.layers: layers,
        keys.hidden_size: hidden_size,
        keys.heads: 4,
        keys.ffn_size: 24,
        keys.positions: 24,
        "vocab_size": 60,
        "pad_token_id": int(declared.reserves_positions),
    }
    segments = {keys.segments: 1 + declared.segmented} if keys.segments else {}
    own = TINY_SETTINGS.get(family, {})
    return AutoConfig.for_model(family, **(sizes | segments | own | changes))


def tiny_model(family: str = "roberta", *, layers: int = 4, exits: bool = False, seed: int = 0, **changes):
    """A random model in evaluation mode, small enough to train in a second."""
    import torch

    from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification

    torch.manual_seed(seed)
    encoder = tiny_encoder_config(family, layers=layers)
    config = MultiExitConfig.from_backbone(encoder, sep_token_id=2, labels=["no", "yes"])
    exit_layers = list(range(1, layers + 1)) if exits else [layers]
    own = {"initializer_range": 0.3, "layer_norm_eps": 1e-5, "exit_layers": exit_layers}
    return MultiExitForSequenceClassification(config.with_shape(**(own | changes))).eval()


def tiny_batch(*, rows: int = 6, length: int = 9, pad_token_id: int = 1, seed: int = 0):
    """Token ids, attention mask (rows of different lengths) and labels."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (rows, length), generator=generator)
    lengths = torch.randint(3, length + 1, (rows, 1), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length) < lengths).long()
    ids = torch.where(mask.bool(), ids, pad_token_id)
    ids[torch.arange(rows), lengths[:, 0] - 1] = 2
    labels = torch.randint(0, 2, (rows,), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def write_backbone(folder: Path, *, family: str = "roberta", layers: int = 4, hidden_size: int = 16) -> Path:
    """A random pretrained encoder with a tokenizer, as the workflow keeps them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModel, PreTrainedTokenizerFast

    from pipeops.models.backbones import save_backbone

    torch.manual_seed(7)
    config = tiny_encoder_config(family, layers=layers, hidden_size=hidden_size)
    pad = config.pad_token_id
    special = ["<pad>", "<s>"] if pad == 0 else ["<s>", "<pad>"]
    words = {word: index for index, word in enumerate([*special, "</s>", *(f"w{i}" for i in range(57))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", sep_token="</s>", cls_token="<s>", model_max_length=22
    )
    save_backbone(AutoModel.from_config(config), fast, folder)
    return folder


def stop_dropping_out(backbone: Path) -> Path:
    """Set a backbone's dropout to 0: then trainings differ by rounding only."""
    config = json.loads((backbone / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (backbone / "config.json").write_text(json.dumps(config))
    (backbone / SUMS).unlink()
    return backbone


def training_command(job, output: Path, state: Path, *options: str) -> list[str]:
    """The command line of a training."""
    from pipeops.operators.registry import OPERATORS

    document = {"training": job.settings.model_dump(), "exits": job.exits.model_dump()}
    if section := OPERATORS[job.operator].section:
        document[section] = job.own_settings.model_dump()
    return [
        sys.executable, "-m", "pipeops", "train", job.operator,
        *(["--parent", str(job.parent)] if job.parent else []),
        "--backbone", str(job.backbone), "--data", str(job.data), "--output", str(output), "--seed", "1",
        "--settings", json.dumps(document), "--state", str(state), *options,
    ]  # fmt: skip


def same_weights(one: Path, two: Path, *, atol: float = 1e-3) -> bool:
    """Whether two checkpoints have the same weights but for rounding."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, two))
    return all(torch.allclose(theirs[name], weight, atol=atol) for name, weight in ours.items())


CLASSES = {0: "Negative", 1: "neutral", 2: "POSITIVE"}


def write_classifier(folder: Path, family: str, *, names=CLASSES, model_class=None, **changes) -> Path:
    """A random classifier of transformers' own, with a tokenizer; ``changes`` are of its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(write_backbone(folder, family=family))
    named = {"id2label": dict(names), "label2id": {name: number for number, name in names.items()}}
    config.update(named | {"initializer_range": 0.3} | changes)
    torch.manual_seed(3)
    make = model_class or AutoModelForSequenceClassification.from_config
    make(config).save_pretrained(folder)
    (folder / SUMS).unlink()
    return folder


def write_examples(path: Path, *, rows: int = 48, seed: int = 0, pad_token_id: int = 1) -> Path:
    """A tokenised split that can be learned: the label is whether the second token is below 30."""
    random = np.random.default_rng(seed)
    ids = [[0, *random.integers(5, 60, random.integers(2, 8)).tolist(), 2] for _ in range(rows)]
    labels = [int(row[1] < 30) for row in ids]
    about = {"labels": ["no", "yes"], "pad_token_id": pad_token_id, "sep_token_id": 2, "max_length": 12}
    columns = {"input_ids": pa.array(ids, type=pa.list_(pa.int32())), "label": pa.array(labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"pipeops": json.dumps(about)}), path)
    return path


def unsealed(folder: Path) -> Path:
    """The same folder as an earlier version would have written it: without digests."""
    for path in [*folder.rglob(SUMS), *folder.rglob("*.sha256")]:
        path.unlink()
    return folder


def folder_from(variable: str) -> Path:
    """The folder that an environment variable names; without it the test is skipped."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])


def snakemake(folder, *arguments, config=None, check=True):
    """Run Snakemake in ``folder``, over ``study.yaml`` there with ``config`` merged into it."""
    study = yaml.safe_load((folder / "study.yaml").read_text()) if (folder / "study.yaml").exists() else {}
    for key, value in (config or {}).items():
        study[key] = study.get(key, {}) | value if isinstance(value, dict) else value
    (folder / "run.yaml").write_text(yaml.safe_dump(study))
    files = ["--configfile", str(ROOT / "config.yaml"), str(folder / "run.yaml")]
    command = [*SNAKEMAKE, "--directory", str(folder), *arguments, *files]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or run.returncode == 0, run.stdout + run.stderr
    return run


def planned(run):
    """Number of jobs per rule of a dry run."""
    counts = re.findall(r"^(\w+) +(\d+)$", run.stdout + run.stderr, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule != "total"}


def write_two_layer_backbone(folder, *, seed, tokenizer=None):
    """A random encoder of two layers, over the generator's vocabulary unless a tokenizer is given."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    from pipeops.models.backbones import save_backbone
    from pipeops.training.pretraining import word_tokenizer

    torch.manual_seed(seed)
    tokenizer = tokenizer or word_tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_backbone(RobertaModel(config), tokenizer, folder)


def flat(accuracies: Mapping[str, Sequence[float]]) -> dict[tuple[str, int], TradeoffCurve]:
    """Flat curves from an accuracy in percent per ordering and seed: their distance is the difference."""
    return {
        (ordering, seed): TradeoffCurve(np.array([0.1, 1.0]), np.full(2, accuracy / 100))
        for ordering, row in accuracies.items()
        for seed, accuracy in enumerate(row)
    }


# A world in which the equations hold exactly, but for Q: on pruned models it leaves 0.3, on others 0.5.
A_O, A_D, A_P, T_D, T_P, LEFT_BY_L = 0.9, 0.81, 0.72, 0.55, 0.6, 0.25
THRESHOLDS = [0.0, 0.5, 1.01]
E_CURVE = {"accuracy": np.array([0.6, 0.8, 0.9]), "time": np.array([0.1, 0.5, 1.0])}


def world(pipeline, inference, *, pruned_q=0.3):
    accuracy, time = (E_CURVE["accuracy"], E_CURVE["time"]) if "E" in pipeline else ([A_O], [1.0])
    accuracy, time = np.array(accuracy), np.array(time)
    if "D" in pipeline:
        accuracy = accuracy * A_D / A_O
        time = 0.1 + (time - 0.1) * T_D if "E" in pipeline else time * T_D
    if "P" in pipeline:
        accuracy, time = accuracy * A_P / A_O, time * T_P
    if "L" in inference:
        time = time * LEFT_BY_L
    if "Q" in inference:
        accuracy, time = accuracy * 0.98, time * (pruned_q if "P" in pipeline else 0.5)
    return accuracy, time


def measured(pipelines=("O", "D", "P", "E", "DE", "ED", "PE", "EP", "DEP"), seeds=(1, 2), **options):
    rows = []
    for pipeline in pipelines:
        for seed in seeds:
            for inference in ("", "L", "Q", "LQ"):
                accuracy, time = world(pipeline, inference, **options)
                thresholds = THRESHOLDS if "E" in pipeline else [math.nan]
                layers = range(1, len(thresholds) + 1)
                for point in zip(thresholds, accuracy, time, layers, strict=True):
                    rows.append(("sst2", pipeline, seed, inference, *point))
    columns = ["dataset", "pipeline", "seed", "inference", "threshold", "accuracy", "time_relative"]
    columns.append("mean_exit_layer")
    return pd.DataFrame(rows, columns=columns).assign(metric="accuracy")


def savings_run(
    pipeline, seed, *, accuracy, accuracy_q, time, left_q, left_l, left_lq, thresholds=(math.nan,)
):
    rows = []
    for inference, correct, left in (
        ("", accuracy, 1), ("L", accuracy, left_l), ("Q", accuracy_q, left_q), ("LQ", accuracy_q, left_lq),
    ):  # fmt: skip
        for depth, threshold in enumerate(thresholds, start=1):
            share = depth / len(thresholds)
            rows.append(
                {
                    "dataset": "sst2",
                    "metric": "accuracy",
                    "pipeline": pipeline,
                    "seed": seed,
                    "inference": inference,
                    "threshold": threshold,
                    "accuracy": correct * share,
                    "time_ms": 10 * time * left * share,
                    "time_relative": time * left * share,
                }
            )
    return rows

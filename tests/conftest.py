"""Shared by the tests: tiny random models and data, and where real ones are, if they are."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a network
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models; tests run side by side

ROOT = Path(__file__).parent.parent


def tiny_model(family: str = "roberta", *, layers: int = 4, exits: bool = False, seed: int = 0, **changes):
    """A random model in evaluation mode, small enough to train in a second."""
    import torch

    from pipeops.modeling import MultiExitConfig, MultiExitForSequenceClassification

    torch.manual_seed(seed)
    config = MultiExitConfig(
        family=family,
        vocab_size=60,
        hidden_size=16,
        head_size=4,
        heads_per_layer=[4] * layers,
        ffn_per_layer=[24] * layers,
        exit_layers=list(range(1, layers + 1)) if exits else [layers],
        max_position_embeddings=24,
        type_vocab_size=1 if family == "roberta" else 2,
        pad_token_id=1 if family == "roberta" else 0,
        sep_token_id=2,
        initializer_range=0.3,
        id2label={0: "no", 1: "yes"},
        **changes,
    )
    return MultiExitForSequenceClassification(config).eval()


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
    from transformers import PreTrainedTokenizerFast

    from pipeops.backbones import save_backbone
    from pipeops.modeling import ENCODERS

    torch.manual_seed(7)
    config_class, model_class = ENCODERS[family]
    pad = 1 if family == "roberta" else 0
    config = config_class(
        vocab_size=60,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=24,
        type_vocab_size=1 if family == "roberta" else 2,
        pad_token_id=pad,
    )
    special = ["<pad>", "<s>"] if pad == 0 else ["<s>", "<pad>"]
    words = {word: index for index, word in enumerate([*special, "</s>", *(f"w{i}" for i in range(57))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", sep_token="</s>", cls_token="<s>", model_max_length=22
    )
    save_backbone(model_class(config), fast, folder)
    return folder


def write_examples(path: Path, *, rows: int = 48, seed: int = 0, pad_token_id: int = 1) -> Path:
    """A tokenised split that can be learned: the label is whether the second token is below 30."""
    import json

    random = np.random.default_rng(seed)
    ids = [[0, *random.integers(5, 60, random.integers(2, 8)).tolist(), 2] for _ in range(rows)]
    labels = [int(row[1] < 30) for row in ids]
    about = {"labels": ["no", "yes"], "pad_token_id": pad_token_id, "sep_token_id": 2, "max_length": 12}
    columns = {"input_ids": pa.array(ids, type=pa.list_(pa.int32())), "label": pa.array(labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata({"pipeops": json.dumps(about)}), path)
    return path


def folder_from(variable: str) -> Path:
    """The folder that an environment variable names; without it the test is skipped."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])


@pytest.fixture
def glue() -> Path:
    """Real GLUE."""
    return folder_from("PIPEOPS_GLUE")


@pytest.fixture
def minilm() -> Path:
    """A real pretrained BERT-style encoder."""
    return folder_from("PIPEOPS_MINILM")

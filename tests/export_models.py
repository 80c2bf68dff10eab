"""Tiny checkpoints with random weights, for the tests of the export and of the runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeops.models.families.post_norm import PostNorm
from pipeops.models.families.pre_norm import PreNorm
from pipeops.models.families.relative_post_norm import RelativePostNorm
from pipeops.models.shape import ModelShape, is_norm, tensor_shapes


def tiny_shape(**changes: Any) -> ModelShape:
    """A RoBERTa of three layers with an exit after each, and what ``changes`` say."""
    values: dict[str, Any] = {
        "family": "roberta",
        "vocab_size": 50,
        "hidden_size": 32,
        "head_size": 8,
        "heads_per_layer": (4, 4, 4),
        "ffn_per_layer": (48, 48, 48),
        "exit_layers": (1, 2, 3),
        "num_labels": 2,
        "max_position_embeddings": 26,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "sep_token_id": 2,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
    }
    return ModelShape(**(values | changes))


def bert(**changes: Any) -> ModelShape:
    return tiny_shape(
        **({"family": "bert", "type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12} | changes)
    )


def electra(**changes: Any) -> ModelShape:
    return bert(**({"family": "electra", "layout": PostNorm(embedding_size=12)} | changes))


def mpnet(**changes: Any) -> ModelShape:
    return tiny_shape(**({"family": "mpnet", "layout": RelativePostNorm()} | changes))


RHYTHM = PreNorm(
    attention=("global", "local", "local", "global", "local", "local"), window=2, local_theta=100.0
)


def modernbert(**changes: Any) -> ModelShape:
    own = {"family": "modernbert", "layout": RHYTHM.with_layers([1, 2, 3]), "pad_token_id": 0}
    return tiny_shape(**(own | changes))


SIX = {"heads_per_layer": (4,) * 6, "ffn_per_layer": (48,) * 6, "exit_layers": (6,), "layout": RHYTHM}
PRUNED = {"heads_per_layer": (2, 1, 3), "ffn_per_layer": (20, 48, 7)}
SHAPES = {
    "roberta": tiny_shape(),
    "roberta-pruned": tiny_shape(**PRUNED),
    "roberta-single": tiny_shape(exit_layers=(3,)),
    "roberta-sparse": tiny_shape(exit_layers=(2, 3), num_labels=5, type_vocab_size=2),
    "bert": bert(),
    "bert-pruned": bert(**PRUNED),
    "bert-single": bert(exit_layers=(3,), num_labels=3),
    "bert-relu": bert(hidden_act="relu", type_vocab_size=1),
    "roberta-slender": tiny_shape(**PRUNED, embedding_rank=6),
    "bert-slender": bert(**PRUNED, embedding_rank=6),
    "roberta-mean": tiny_shape(pooling="mean"),
    "bert-mean": bert(pooling="mean"),
    "bert-slender-mean": bert(**PRUNED, embedding_rank=6, pooling="mean"),
    "roberta-low-rank": tiny_shape(ffn_rank=6),
    "bert-pruned-low-rank": bert(**PRUNED, ffn_rank=10),
    "xlm-roberta": tiny_shape(family="xlm-roberta"),
    "camembert": tiny_shape(family="camembert"),
    "distilbert": tiny_shape(family="distilbert", pad_token_id=0),
    "electra": electra(),
    "electra-slender-mean": electra(**PRUNED, embedding_rank=6, pooling="mean"),
    "mpnet": mpnet(),
    "mpnet-pruned-mean": mpnet(**PRUNED, pooling="mean"),
    "mpnet-slender-low-rank": mpnet(**PRUNED, embedding_rank=6, ffn_rank=6),
    "modernbert": modernbert(),
    "modernbert-pruned-mean": modernbert(**PRUNED, pooling="mean"),
    "modernbert-slender": modernbert(**PRUNED, embedding_rank=6),
    "modernbert-low-rank": modernbert(ffn_rank=6),
    "modernbert-alternate": modernbert(**SIX).with_layers([2, 4, 6]).with_all_exits(),
}


def random_weights(shape: ModelShape, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights large enough that every part of the model shows in the logits."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, dims in tensor_shapes(shape).items():
        mean = 1.0 if is_norm(name, dims) else 0.0
        weights[name] = rng.normal(mean, 0.3, dims).astype(np.float32)
    return weights


def write_checkpoint(folder: Path, shape: ModelShape, weights: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.to_config()))
    save_file(weights or random_weights(shape), folder / "model.safetensors")
    return folder


def random_tokens(shape: ModelShape, lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded ids and mask: text, a separator in the middle and one at the end."""
    rng = np.random.default_rng(seed)
    ids = np.full((len(lengths), max(lengths)), shape.pad_token_id, dtype=np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = rng.integers(3, shape.vocab_size, length)
        row[length // 2] = row[length - 1] = shape.sep_token_id
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return ids, mask.astype(np.int64)

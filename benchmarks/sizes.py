"""What COST-EFF's width is on BERT-base: parameters and FLOPs, counted by PyTorch on random weights.

python benchmarks/sizes.py  # heads 2, FFN 256, rank 128, 128 tokens: 1/8 and 1/19 of Shen et al. 2022
"""

import argparse

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.text import markdown_table

CLAIMED_SPEEDUP = 19
"""COST-EFF: 1/19 of BERT's FLOPs."""


def main() -> None:
    """Print the table."""
    arguments = _arguments()
    bert = MultiExitConfig(
        family="bert",
        vocab_size=30522,
        max_position_embeddings=512,
        type_vocab_size=2,
        pad_token_id=0,
        heads_per_layer=[12] * 12,
        ffn_per_layer=[3072] * 12,
        exit_layers=[12],
        layer_norm_eps=1e-12,
        # PyTorch's counter does not see into the fused attention.
        attn_implementation="eager",
    )
    slender = bert.with_shape(
        heads_per_layer=[arguments.heads] * 12,
        ffn_per_layer=[arguments.ffn] * 12,
        embedding_rank=arguments.rank,
        exit_layers=list(range(1, 13)),
        attn_implementation="eager",
    )
    original, narrow = count(bert, arguments.length), count(slender, arguments.length)
    rows = []
    for what, key in (("parameters, no classifiers", "encoder"), ("parameters", "all"), ("FLOPs", "flops")):
        values = original[key], narrow[key]
        rows.append([what, *(f"{value:,}" for value in values), f"1/{values[0] / values[1]:.2f}"])
    print(markdown_table(["", "BERT-base", "slender, all exits", "ratio"], rows))
    flops = np.array(slender.shape.flops(arguments.length))
    wanted = original["flops"] / CLAIMED_SPEEDUP
    layer = np.interp(wanted, flops, np.arange(1, 13))
    print(f"\n1/{CLAIMED_SPEEDUP} of the FLOPs: examples leave after layer {layer:.2f} on average")


def count(config: MultiExitConfig, length: int) -> dict[str, int]:
    """Parameters and FLOPs by PyTorch; they must be the shape's own."""
    model = MultiExitForSequenceClassification(config).eval()
    exits = sum(parameter.numel() for parameter in model.exits.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.full((1, length), 5))
    flops = counter.get_total_flops()
    if (total, flops) != (config.shape.parameters, config.shape.flops(length)[-1]):
        raise SystemExit(f"PyTorch counts {total} and {flops}, the shape says otherwise")
    return {"encoder": total - exits, "all": total, "flops": flops}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--ffn", type=int, default=256)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()

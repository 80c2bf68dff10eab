"""Examples as Trainer wants them, and batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeops.data.tokenised import TokenisedSplit, pad

_SAMPLE_SEED = 0


class Examples(Dataset):
    """Tokenised examples as Trainer wants them."""

    def __init__(self, split: TokenisedSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.split.input_ids[index], "label": int(self.split.label_ids[index])}


@dataclass(frozen=True)
class Collator:
    """Pads a batch to its longest example, or a little further."""

    pad_token_id: int
    multiple_of: int = 1
    """Lengths are rounded up to a multiple of this,"""
    longest: int | None = None
    """but not beyond this."""

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack examples into ``input_ids``, ``attention_mask`` (batch, length) and ``labels`` (batch,)."""
        sequences = [example["input_ids"] for example in examples]
        length = -(-max(map(len, sequences)) // self.multiple_of) * self.multiple_of
        if self.longest is not None:
            length = min(length, self.longest)
        ids, mask = pad(sequences, pad_token_id=self.pad_token_id, length=length)
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.tensor([example["label"] for example in examples]),
        }


def batches(
    split: TokenisedSplit, *, examples: int | None, batch_size: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Some examples (None: all) once, sorted by length to save padding; importance is a sum."""
    drawn = np.random.default_rng(_SAMPLE_SEED).permutation(len(split))[:examples].tolist()
    order = sorted(drawn, key=lambda index: len(split.input_ids[index]))
    rows, collate = Examples(split), Collator(split.pad_token_id)
    for start in range(0, len(order), batch_size):
        batch = collate([rows[index] for index in order[start : start + batch_size]])
        yield {name: tensor.to(device) for name, tensor in batch.items()}

"""The order of the training examples: a function of seed and epoch only, so that a resumed run repeats it."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

BATCHES_PER_POOL = 50
"""Batches of similar length are cut from random pools. This is a pool's size, in batches."""


class EpochSampler(Sampler[int]):
    """Shuffles anew in every epoch; optionally so that a batch holds examples of similar length."""

    def __init__(self, lengths: Sequence[int], *, batch_size: int, grouped: bool, seed: int) -> None:
        """Describe the examples.

        Args:
            lengths: every example's length in tokens.
            batch_size: examples per batch.
            grouped: whether batches hold examples of similar length.
            seed: seed of the order.
        """
        self.lengths, self.batch_size, self.grouped, self.seed = lengths, batch_size, grouped, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    @property
    def batches(self) -> int:
        """Of an epoch, the last of which may not be full."""
        return -(-len(self.lengths) // self.batch_size)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield every index once."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        return iter(self._grouped(order, generator) if self.grouped else order)

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        """Sort pools of the order by length and shuffle the batches, so that training sees no trend."""
        pool_size = self.batch_size * min(BATCHES_PER_POOL, max(1, len(order) // (4 * self.batch_size)))
        batches = [
            batch
            for start in range(0, len(order), pool_size)
            for batch in _batched(sorted(order[start : start + pool_size], key=self._length), self.batch_size)
        ]
        # A batch that is not full must stay the last, or it would cut all later ones in two.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [index for batch in batches if len(batch) < self.batch_size for index in batch]
        shuffled = torch.randperm(len(full), generator=generator).tolist()
        return [index for number in shuffled for index in full[number]] + rest

    def _length(self, index: int) -> int:
        return self.lengths[index]


def _batched(values: Sequence[int], size: int) -> list[Sequence[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]

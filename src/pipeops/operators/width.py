"""How slender C makes a model: its width, in one step or several. Nothing heavy is imported.

Width is attention heads and FFN neurons per layer, and the rank of the word embeddings; depth stays.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeops.models.architectures import Architecture
from pipeops.settings import UnusableSetting

if TYPE_CHECKING:
    from pipeops.operators.builtin import CostEffSection

FFN_SHARE = 0.5
"""Preferred fraction of a head's share of the neurons: 128 of BERT-base's 256 (Shen et al. 2022)."""


@dataclass(frozen=True, kw_only=True)
class Width:
    """The width of a model whose layers are all alike."""

    heads: int
    """Per layer."""
    ffn: int
    """Neurons per layer."""
    rank: int
    """Of the word embeddings."""

    def parameters(self, architecture: Architecture) -> int:
        """Number of weights of a backbone of this width, exits' classifiers not counted."""
        return architecture.parameters(heads=self.heads, ffn=self.ffn, rank=self.rank)


def full_width(architecture: Architecture) -> Width:
    """The width of the backbone itself."""
    rank = min(architecture.word_size, architecture.vocab_size)
    return Width(heads=architecture.heads, ffn=architecture.ffn_size, rank=rank)


def target_width(settings: "CostEffSection", architecture: Architecture) -> Width:
    """The width that the settings ask for.

    A ``compression`` leaves a choice. As in Shen et al. 2022, the rank follows the heads (64 a head on
    BERT-base). For each number of heads the FFN takes what weights are left, and of these widths that is
    chosen whose FFN is closest, by ratio, to half of what the backbone has per head.

    Raises:
        UnusableSetting: more heads, neurons or rank than there are, or a compression out of reach.
    """
    full = full_width(architecture)
    if settings.heads and settings.ffn and settings.rank:
        width = Width(heads=settings.heads, ffn=settings.ffn, rank=settings.rank)
        for name, given, most in (
            ("heads", width.heads, full.heads),
            ("ffn", width.ffn, full.ffn),
            ("rank", width.rank, full.rank),
        ):
            if given > most:
                raise UnusableSetting(f"costeff.{name}: {given} is more than the backbone's {most}; lower it")
        return width
    assert settings.compression is not None
    original = architecture.parameters(heads=full.heads, ffn=full.ffn)
    target = original / settings.compression
    candidates = [_filled(heads, target, architecture) for heads in range(full.heads, 0, -1)]
    candidates = [width for width in candidates if width.ffn >= 1]
    if not candidates:
        least = Width(heads=1, ffn=1, rank=_rank(1, full)).parameters(architecture)
        raise UnusableSetting(
            f"costeff.compression: {settings.compression:g} is out of reach: one head and one FFN neuron per "
            f"layer are 1/{original / least:.1f} of the backbone; lower it"
        )

    def off(width: Width) -> float:
        """How many times too wide or too narrow the FFN is, as a logarithm."""
        share = width.ffn / width.heads * full.heads / full.ffn
        return abs(math.log(share / FFN_SHARE))

    return min(candidates, key=off)


def widths(full: Width, target: Width) -> list[Width]:
    """Go from one width to another by one head per step, FFN and rank alongside linearly.

    Returns:
        The width of every step; the last is ``target``, also where no head goes.
    """
    steps = max(1, full.heads - target.heads)

    def between(of_full: int, of_target: int, step: int) -> int:
        return round(of_full + (of_target - of_full) * step / steps)

    return [
        Width(
            heads=between(full.heads, target.heads, step),
            ffn=between(full.ffn, target.ffn, step),
            rank=between(full.rank, target.rank, step),
        )
        for step in range(1, steps + 1)
    ]


def _rank(heads: int, full: Width) -> int:
    return full.rank * heads // full.heads


def _filled(heads: int, target: float, architecture: Architecture) -> Width:
    """The widest FFN, up to the heads' share of the backbone's, within ``target`` weights; it may be none."""
    full = full_width(architecture)
    rank = _rank(heads, full)
    without = architecture.parameters(heads=heads, ffn=0, rank=rank)
    per_neuron = architecture.parameters(heads=heads, ffn=1, rank=rank) - without
    ffn = min(int((target - without) // per_neuron), full.ffn * heads // full.heads)
    return Width(heads=heads, ffn=ffn, rank=rank)

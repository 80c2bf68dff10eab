"""Embeddings and linear maps of a low rank."""

from torch import Tensor, nn


class FactorisedEmbedding(nn.Module):
    """Word embeddings of a low rank: a narrow table and the projection that widens its rows."""

    def __init__(self, vocab_size: int, rank: int, size: int, *, padding_idx: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, rank, padding_idx=padding_idx)
        self.projection = nn.Linear(rank, size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Map ids of any shape to embeddings of shape (..., size)."""
        return self.projection(self.table(input_ids))


class FactorisedLinear(nn.Module):
    """A linear map of a low rank: one without bias to ``rank`` values, one from there."""

    def __init__(self, inputs: int, outputs: int, *, rank: int, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, rank, bias=False)
        self.second = nn.Linear(rank, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., inputs) to (..., outputs)."""
        return self.second(self.first(x))

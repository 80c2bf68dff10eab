"""Standardisation of what an exit sees, while it is trained.

After fine-tuning, the first token's state in the lower layers differs between sentences by some thousandths
of its size: to a classifier that starts from small random weights it is a constant. Standardised, its
differences are what is seen.
"""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce  # which gradients go through

EPSILON = 1e-8
"""Added to variances, which are near 1e-6 where an exit sees next to nothing."""
MOMENTUM = 0.1
"""Part of the newest batch in the running statistics, once there have been 1 / MOMENTUM batches."""


class Standardisation(nn.Module):
    """Each unit to mean 0 and variance 1: batch normalisation without weights.

    In training mode with the statistics of the batch, of all processes that share it, otherwise with those
    that were kept. A batch of one example has no variance: it is standardised with what was kept and leaves
    no trace. Buffers are saved with the model's weights, so an interrupted training goes on with the same
    statistics.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise ``x``, shape (batch, size), in float32."""
        x = x.float()
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        examples = processes * len(x)
        if not self.training or examples == 1:
            return (x - self.mean) * (self.variance + EPSILON).rsqrt()
        mean = x.mean(dim=0)
        variance = x.var(dim=0, correction=0)
        if processes > 1:  # each has as many examples, so means of theirs are those of the batch
            of_all = all_reduce(mean) / processes
            variance = all_reduce(variance + (mean - of_all) ** 2) / processes
            mean = of_all
        self._keep(mean.detach(), variance.detach() * examples / (examples - 1))
        return (x - mean) * (variance + EPSILON).rsqrt()

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Average over all batches at first, exponentially later."""
        self.batches += 1
        share = (1 / self.batches).clamp(min=MOMENTUM)
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)

    @torch.no_grad()
    def fold_into(self, dense: nn.Linear) -> None:
        """Change the linear map behind so that it takes raw inputs; what it returns stays the same."""
        scale = (self.variance.double() + EPSILON).rsqrt()
        weight = dense.weight.double() * scale
        dense.bias.copy_(dense.bias.double() - weight @ self.mean.double())
        dense.weight.copy_(weight)

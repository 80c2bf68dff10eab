"""Gradient equilibrium: every exit has the same weight at every layer below it (Shen et al. 2022).

With an exit after each of K layers, layer i receives gradients from K - i + 1 exits. Where they meet, at the
output of a layer, those of its own exit are scaled by 1 / n and those that come down from the layers above by
(n - 1) / n, n being the number of exits at or above the layer. By induction every exit then weighs 1 / n at
layer i, so that the sum is a mean and all layers learn at one pace.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeops.models.multi_exit import MultiExitForSequenceClassification


class _ScaledGradient(torch.autograd.Function):
    """The identity, with the gradient scaled on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None


@contextmanager
def gradient_equilibrium(model: MultiExitForSequenceClassification) -> Iterator[None]:
    """While open, gradients of exits are balanced at every layer that has one; answers do not change.

    Losses on hidden states are not exits: one reaches its own layer as it is, and goes on down through the
    same scales, so that at each layer it weighs as much as what comes from above.
    """

    def scale_input_by(scale: float) -> Callable[[Any, tuple], tuple]:
        return lambda _, inputs: (_ScaledGradient.apply(inputs[0], scale), *inputs[1:])

    exits = model.config.exit_layers
    hooks = []
    for position, layer in enumerate(exits[:-1]):
        above = len(exits) - position  # exits at or above this layer
        hooks.append(model.exits[str(layer)].register_forward_pre_hook(scale_input_by(1 / above)))
        # The next layer's input is where what comes down from above arrives.
        hooks.append(model.layers[layer].register_forward_pre_hook(scale_input_by((above - 1) / above)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

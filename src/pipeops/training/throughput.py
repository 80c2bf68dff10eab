"""How fast this machine trains a model: steps on random tokens, without data or files."""

import statistics
import time

import torch

from pipeops.hardware import compute_dtype, device
from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.models.shape import ModelShape
from pipeops.progress import tracked
from pipeops.settings import TrainingSettings

_WARM_UP = 3


def examples_per_second(
    shape: ModelShape, settings: TrainingSettings, *, length: int, steps: int = 10
) -> float:
    """Measure fine-tuning: forward, backward and AdamW on batches of random tokens.

    Args:
        shape: the model's; weights are random.
        settings: batch size, precision and threads are used.
        length: tokens of every example.
        steps: timed steps, of which the median counts.
    """
    where = device()
    if where.type == "cpu":
        torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    model = MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape)).to(where).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(5, shape.vocab_size, (settings.batch_size, length), device=where)
    labels = torch.zeros(settings.batch_size, dtype=torch.long, device=where)
    seconds = []
    for _ in tracked(range(_WARM_UP + steps), "measure the rate of training", total=_WARM_UP + steps):
        start = time.perf_counter()
        with torch.autocast(where.type, torch.bfloat16, enabled=compute_dtype(settings.precision) == "bf16"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if where.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return settings.batch_size / statistics.median(seconds[_WARM_UP:])

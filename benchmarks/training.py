"""Training throughput: examples per second and share of the hardware's peak, one measure at a time.

    python benchmarks/training.py                                # RoBERTa-base, batch 8 and 32, 128 tokens
    python benchmarks/training.py --peak 989e12 --jobs 1 4 8     # an H100 or H200 in bf16, jobs side by side
    python benchmarks/training.py --steps 5 --batch 8            # shorter, as on a CPU

The baseline is Trainer as it comes, in fp32. Every run is Trainer's whole loop on random tokens; the median
of the steps counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import torch
from common import roberta
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from pipeops.modeling import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.operators.base import Loss, distilling_from, exits_loss
from pipeops.planning import FORWARD_AND_BACKWARD
from pipeops.provenance import cpu
from pipeops.reporting import markdown_table
from pipeops.shape import ModelShape
from pipeops.throughput import device, device_name
from pipeops.training import Collator, OperatorTrainer

PLAIN = {"optim": "adamw_torch", "dataloader_pin_memory": False}
TOGETHER = {"tf32": True, "bf16": True, "optim": "adamw_torch_fused", "dataloader_pin_memory": True}
MEASURES: dict[str, dict[str, Any]] = {
    "plain Trainer, fp32": {},
    "TF32 products": {"tf32": True},
    "bf16": {"bf16": True},
    "fused AdamW": {"optim": "adamw_torch_fused"},
    "pinned memory": {"dataloader_pin_memory": True},
    "compiled": {"torch_compile": True, "torch_compile_mode": "default"},
    "compiled, CUDA graphs": {"torch_compile": True, "torch_compile_mode": "reduce-overhead"},
    "as PipeOps trains": TOGETHER,
    "all, compiled": TOGETHER | {"torch_compile": True, "torch_compile_mode": "default"},
}
GPU_ONLY = ("tf32", "torch_compile", "dataloader_pin_memory")
TRAININGS = ("fine-tuning", "exits", "distillation")
WARM_UP = 3


def main() -> None:
    """Print a table per batch size, then jobs side by side, then what it was measured on."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    for batch in arguments.batch:
        rows = []
        for training in arguments.training:
            baseline = None
            for name, options in MEASURES.items():
                if not runs_here(options):
                    continue
                [rate] = apart([_job(arguments, training, batch, options)])
                baseline = baseline or rate
                rows.append([training, name, *_cells(rate, baseline, training, arguments)])
        header = ["Training", "Measure", "Examples a second", "Times the baseline", "Share of peak"]
        print(f"Batch {batch}, {arguments.length} tokens\n\n{markdown_table(header, rows)}\n", flush=True)
    rows = []
    options = {k: v for k, v in MEASURES["as PipeOps trains"].items() if runs_here({k: v})}
    for jobs in arguments.jobs:
        rates = apart([_job(arguments, "fine-tuning", arguments.batch[0], options)] * jobs)
        rows.append([str(jobs), f"{sum(rates):.1f}", f"{sum(rates) / jobs:.1f}"])
    print(markdown_table(["Jobs side by side", "Examples a second, all", "one job"], rows))
    print(json.dumps({"device": device_name(), "cpu": cpu(), "torch": torch.__version__}))


def runs_here(options: dict[str, Any]) -> bool:
    """Whether a measure means anything on this machine."""
    return device().type == "cuda" or not any(options.get(name) for name in GPU_ONLY)


def apart(jobs: list[dict[str, Any]]) -> list[float]:
    """Run each job in a process of its own, all at the same time; their examples per second."""
    command = [sys.executable, __file__, "--one"]
    processes = [
        subprocess.Popen([*command, json.dumps(job)], stdout=subprocess.PIPE, text=True) for job in jobs
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a measured job failed; its message is above")
    return [float(output.splitlines()[-1]) for output in outputs]


def measure(
    *,
    training: str,
    layers: int,
    hidden: int,
    vocab: int,
    batch: int,
    length: int,
    steps: int,
    options: dict[str, Any],
) -> float:
    """Examples per second of one training."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    model, loss = _trainee(training, roberta(layers, hidden, vocab))
    clock = Clock()
    examples = RandomTokens(vocab, length, batch * (steps + WARM_UP))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps + WARM_UP,
            per_device_train_batch_size=batch,
            use_cpu=device().type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=10_000,
            **(PLAIN | options),
        )
        trainer: Trainer = OperatorTrainer(
            loss=loss,
            model=model,
            lengths=[length] * len(examples),
            length_grouped=True,
            step_size=batch,
            args=arguments,
            train_dataset=examples,
            data_collator=Collator(1),
            callbacks=[clock],
        )
        trainer.train()
    return batch / statistics.median(clock.seconds[WARM_UP:])


class Clock(TrainerCallback):
    """Times every step, the GPU's work included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.start)


class RandomTokens(Dataset):
    """Examples without meaning."""

    def __init__(self, vocab: int, length: int, rows: int) -> None:
        self.ids = torch.randint(5, vocab, (rows, length)).numpy()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "label": index % 2}


def _trainee(training: str, shape: ModelShape) -> tuple[MultiExitForSequenceClassification, Loss]:
    single = replace(shape, exit_layers=(shape.num_layers,))
    if training == "fine-tuning":
        return _model(single), exits_loss
    if training == "exits":
        return _model(shape), exits_loss
    teacher = _model(single).to(device()).eval()
    student = single.cut(shape.num_layers // 2)
    return _model(student), distilling_from(teacher, student_exits=list(student.exit_layers))


def _model(shape: ModelShape) -> MultiExitForSequenceClassification:
    return MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape))


def _job(arguments: argparse.Namespace, training: str, batch: int, options: dict[str, Any]) -> dict[str, Any]:
    size = {"layers": arguments.layers, "hidden": arguments.hidden, "vocab": arguments.vocab}
    return size | {
        "training": training,
        "batch": batch,
        "length": arguments.length,
        "steps": arguments.steps,
        "options": options,
    }


def _cells(rate: float, baseline: float, training: str, arguments: argparse.Namespace) -> list[str]:
    shape = roberta(arguments.layers, arguments.hidden, arguments.vocab)
    forward = shape.flops(arguments.length)[-1]
    flops = FORWARD_AND_BACKWARD * forward
    if training == "distillation":
        flops = FORWARD_AND_BACKWARD * shape.cut(arguments.layers // 2).flops(arguments.length)[-1] + forward
    share = f"{100 * rate * flops / arguments.peak:.1f}%" if arguments.peak else "-"
    return [f"{rate:.2f}", f"{rate / baseline:.2f}", share]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training", choices=TRAININGS, nargs="+", default=TRAININGS)
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each training")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--peak", type=float, help="operations per second of the hardware at its best")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=50265)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

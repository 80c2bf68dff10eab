"""Training throughput: examples per second and share of the hardware's peak, one measure at a time.

    python benchmarks/training.py                                # RoBERTa-base, batch 8 and 32, 128 tokens
    python benchmarks/training.py --peak 989e12 --jobs 1 4 8     # an H100 or H200 in bf16, jobs side by side
    python benchmarks/training.py --steps 5 --batch 8            # shorter, as on a CPU
    python benchmarks/training.py --ragged --training fine-tuning   # lengths as in real data, in buckets

The baseline is Trainer as it comes, in fp32. Every run is Trainer's whole loop on random tokens; the median
of the steps counts. What this machine does not have (TF32, CUDA graphs) is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Container
from dataclasses import replace
from typing import Any

import torch
from common import roberta
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from pipeops.hardware import cpu, device, device_name
from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.models.shape import ModelShape
from pipeops.operators.base import Loss, distilling_from, exits_loss
from pipeops.operators.declaration import FORWARD_AND_BACKWARD
from pipeops.text import markdown_table
from pipeops.training.batches import Collator
from pipeops.training.stages import LENGTH_BUCKET, OperatorTrainer

PLAIN = {"optim": "adamw_torch", "dataloader_pin_memory": False}
COMPILED = {"torch_compile": True, "torch_compile_mode": "default"}
CUDA_GRAPHS = {"torch_compile": True, "torch_compile_mode": "reduce-overhead"}
TOGETHER = {
    "tf32": True,
    "bf16": True,
    "optim": "adamw_torch_fused",
    "dataloader_pin_memory": True,
    "logging_nan_inf_filter": False,
}
MEASURES: dict[str, dict[str, Any]] = {
    "plain Trainer, fp32": {},
    "TF32 products": {"tf32": True},
    "bf16": {"bf16": True},
    "fused AdamW": {"optim": "adamw_torch_fused"},
    "pinned memory": {"dataloader_pin_memory": True},
    "no wait for the loss": {"logging_nan_inf_filter": False},
    "compiled": COMPILED,
    "compiled, CUDA graphs": CUDA_GRAPHS,
    "all but compiling": TOGETHER,
    "all, compiled": TOGETHER | COMPILED,
    "all, CUDA graphs": TOGETHER | CUDA_GRAPHS,
}
GPU_ONLY = ("tf32", "dataloader_pin_memory", "logging_nan_inf_filter")
"""What means nothing on a CPU; CUDA graphs do not either."""
TRAININGS = ("fine-tuning", "exits", "distillation")
WARM_UP = 40 if torch.cuda.is_available() else 2
"""Steps that are not timed: a model is compiled in them, for every length."""
WARM = "warm"
"""What a process says then; it goes on when all are."""
FAILED = ("failed", "-", "-")
SHORTEST = 16


def main() -> None:
    """Print a table per batch size, then jobs side by side, then what it was measured on."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(measure(**json.loads(arguments.one))))
        return
    measures, baselines, failed = measures_here(arguments.measures), {}, False
    for batch in arguments.batch:
        rows = []
        for training in arguments.training:
            for name, options in measures.items():
                rates = apart([_job(arguments, training, batch, options)])
                failed |= not rates
                if not rates and (training, batch) not in baselines:
                    raise SystemExit("the baseline failed; its message is above")
                if rates:
                    baseline = baselines.setdefault((training, batch), rates[0])
                    cells = _cells(rates[0], baseline, training, arguments)
                rows.append([training, name, *(cells if rates else FAILED)])
        header = ["Training", "Measure", "Examples a second", "Times the baseline", "Share of peak"]
        print(f"Batch {batch}, {arguments.length} tokens\n\n{markdown_table(header, rows)}\n", flush=True)
    training, batch = next(iter(baselines))
    rows = []
    for name, options in measures.items():
        if not name.startswith("all"):
            continue
        for jobs in arguments.jobs:
            rates = apart([_job(arguments, training, batch, options)] * jobs)
            failed |= not rates
            total = sum(rates)
            cells = [f"{total:.1f}", f"{total / jobs:.1f}", f"{total / baselines[training, batch]:.2f}"]
            rows.append([name, str(jobs), *(cells if rates else FAILED)])
    header = ["Measure", "Jobs side by side", "Examples a second, all", "one job", "Times the baseline"]
    print(f"{training}, batch {batch}\n\n{markdown_table(header, rows)}")
    print(json.dumps({"device": device_name(), "cpu": cpu(), "torch": torch.__version__}))
    if failed:
        raise SystemExit("a measured job failed; its message is above")


def measures_here(wanted: Container[str]) -> dict[str, dict[str, Any]]:
    """Those of the wanted measures that mean something on this machine, with what they set here."""
    asked = {name: options for name, options in MEASURES.items() if name in wanted}
    if device().type == "cuda":
        return asked
    here: dict[str, dict[str, Any]] = {}
    for name, options in asked.items():
        left = {key: value for key, value in options.items() if key not in GPU_ONLY}
        if left not in here.values() and "CUDA graphs" not in name:
            here[name] = left
    return here


def apart(jobs: list[dict[str, Any]]) -> list[float]:
    """Run each job in a process of its own, all timed at the same time; their examples per second.

    None at all if one of them fails, whose message is on standard error.
    """
    command = [sys.executable, __file__, "--one"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, json.dumps(job)], **pipes) for job in jobs]
    try:
        for process in processes:
            while (line := process.stdout.readline()) and line.strip() != WARM:
                pass
            if not line:
                return []
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        return []
    rates = [float(output.splitlines()[-1]) for output in outputs]
    print(f"{len(jobs)} x {jobs[0]['options']}: {sum(rates):.1f} a second", file=sys.stderr, flush=True)
    return rates


def measure(
    *,
    training: str,
    layers: int,
    hidden: int,
    vocab: int,
    batch: int,
    length: int,
    ragged: bool,
    steps: int,
    options: dict[str, Any],
) -> float:
    """Examples per second of one training."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    model, loss = _trainee(training, roberta(layers, hidden, vocab))
    rows = batch * (steps + WARM_UP)
    lengths = [length] * rows
    if ragged:
        lengths = torch.randint(SHORTEST, length + 1, (rows,)).tolist()
    clock = Clock()
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
        bucket = LENGTH_BUCKET if options.get("torch_compile") else 1
        trainer: Trainer = OperatorTrainer(
            loss=loss,
            model=model,
            lengths=lengths,
            length_grouped=True,
            step_size=batch,
            args=arguments,
            train_dataset=RandomTokens(vocab, lengths),
            data_collator=Collator(1, multiple_of=bucket, longest=length),
            callbacks=[clock],
        )
        trainer.train()
    return batch / statistics.median(clock.seconds_per_step)


class Clock(TrainerCallback):
    """Times the steps. A GPU is not waited for after every one: it may run behind, as in a real training."""

    def __init__(self) -> None:
        self.window = 5 if torch.cuda.is_available() else 1
        """Steps that are timed together."""
        self.seconds_per_step: list[float] = []

    def on_step_end(self, _: Any, state: TrainerState, *__: Any, **___: Any) -> None:
        if state.global_step < WARM_UP or state.global_step % self.window:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step == WARM_UP:
            print(WARM, flush=True)
            sys.stdin.readline()  # until all jobs are
        else:
            self.seconds_per_step.append((time.perf_counter() - self.start) / self.window)
        self.start = time.perf_counter()


class RandomTokens(Dataset):
    """Examples without meaning."""

    def __init__(self, vocab: int, lengths: list[int]) -> None:
        self.ids = [torch.randint(5, vocab, (length,)).numpy() for length in lengths]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "label": index % 2}


def _trainee(training: str, shape: ModelShape) -> tuple[MultiExitForSequenceClassification, Loss]:
    single = replace(shape, exit_layers=(shape.num_layers,))
    if training == "fine-tuning":
        return _model(single), exits_loss("sum")
    if training == "exits":
        return _model(shape), exits_loss("sum")
    teacher = _model(single).to(device()).eval()
    student = single.cut(shape.num_layers // 2)
    return _model(student), distilling_from(teacher, student_exits=list(student.exit_layers), exit_loss="sum")


def _model(shape: ModelShape) -> MultiExitForSequenceClassification:
    return MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape))


def _job(arguments: argparse.Namespace, training: str, batch: int, options: dict[str, Any]) -> dict[str, Any]:
    size = {"layers": arguments.layers, "hidden": arguments.hidden, "vocab": arguments.vocab}
    return size | {
        "training": training,
        "batch": batch,
        "length": arguments.length,
        "ragged": arguments.ragged,
        "steps": arguments.steps,
        "options": options,
    }


def _cells(rate: float, baseline: float, training: str, arguments: argparse.Namespace) -> list[str]:
    shape = roberta(arguments.layers, arguments.hidden, arguments.vocab)
    forward = shape.flops(arguments.length)[-1]
    flops = FORWARD_AND_BACKWARD * forward
    if training == "distillation":
        flops = FORWARD_AND_BACKWARD * shape.cut(arguments.layers // 2).flops(arguments.length)[-1] + forward
    share = f"{100 * rate * flops / arguments.peak:.1f}%" if arguments.peak and not arguments.ragged else "-"
    return [f"{rate:.2f}", f"{rate / baseline:.2f}", share]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training", choices=TRAININGS, nargs="+", default=TRAININGS)
    parser.add_argument("--measures", choices=MEASURES, nargs="+", default=MEASURES, metavar="NAME")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument(
        "--ragged", action="store_true", help=f"{SHORTEST} to --length tokens, not all as long"
    )
    steps = 200 if torch.cuda.is_available() else 30
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of each training")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--peak", type=float, help="operations per second of the hardware at its best")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=50265)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

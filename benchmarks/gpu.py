"""What PipeOps does on a GPU: three parts, each within its minutes, each going on where it stopped.

    python benchmarks/gpu.py tests
    python benchmarks/gpu.py training --peak 989e12      # an H100 or H200 in bf16
    python benchmarks/gpu.py studies --glue /path/to/glue --backbone /path/to/minilm

tests     bf16 against fp32, leases, too little memory, CUDA graphs, a kill (`pytest -m gpu`)
training  RoBERTa-base, batch 8, 128 tokens: one job, and several on one card, over plain Trainer in fp32
studies   answers of SST-2, MRPC, QNLI and QQP with all training examples, trained and evaluated here; with
          --as-configured with as many, and in the precision, as their configurations say

Kernels of jobs that share a card run in turns, unless NVIDIA's MPS was started (docs/cluster.md).
What a part writes lies in --output. A part that is finished is not run again; delete its file to repeat it.
Prices are not taken: they belong to the CPU that models are deployed on.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from common import positive

from pipeops.hardware import device_name
from pipeops.study.config import read_study

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("sst2", "mrpc", "qnli", "qqp")
MEASURES = ("plain Trainer, fp32", "all but compiling", "all, CUDA graphs")
"""The baseline first, what PipeOps does last."""
STOPPED = 124
"""Exit status of a part whose time was up."""
SECONDS_TO_SAVE = 60
"""How long jobs may take to save when they are asked to end."""


def main() -> None:
    """Run one part."""
    arguments = _arguments()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU that PyTorch can use; see what nvidia-smi says")
    print(f"{device_name()}, torch {torch.__version__}", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    parts = {"tests": run_tests, "training": measure_training, "studies": run_studies}
    raise SystemExit(parts[arguments.part](arguments, deadline))


def run_tests(arguments: argparse.Namespace, deadline: float) -> int:
    """The tests that need a GPU; what they said is kept once all have passed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-n", str(arguments.workers)]
    return kept([*command, "tests/training/test_on_gpu.py"], arguments.output / "tests.txt", deadline)


def measure_training(arguments: argparse.Namespace, deadline: float) -> int:
    """Examples per second of one job, and of several side by side."""
    command = [sys.executable, "benchmarks/training.py", "--training", "fine-tuning", "--batch", "8"]
    command += ["--steps", str(arguments.steps), *(["--peak", arguments.peak] if arguments.peak else [])]
    command += ["--measures", *MEASURES, "--jobs", *map(str, arguments.side_by_side)]
    return kept(command, arguments.output / "training.txt", deadline)


def run_studies(arguments: argparse.Namespace, deadline: float) -> int:
    """The answers of all studies at the same time, as far as the time goes: one alone leaves cores idle."""
    if arguments.glue is None or arguments.backbone is None:
        raise SystemExit("studies: name the folders of GLUE and of the encoder by --glue and --backbone")
    begun, cores = time.monotonic(), max(1, (os.cpu_count() or 1) // len(arguments.tasks))
    with ThreadPoolExecutor() as pool:
        running = {}
        for task in arguments.tasks:
            command, answers = study_of(task, arguments, cores)
            running[task] = pool.submit(within, command, deadline), answers
    minutes = (time.monotonic() - begun) / 60
    for task, (_, answers) in running.items():
        there = sum(path.exists() for path in answers)
        print(f"{task}: {there} of {len(answers)} answers are there", flush=True)
    print(f"{minutes:.1f} min this time", flush=True)
    return max(done.result() for done, _ in running.values())


def study_of(task: str, arguments: argparse.Namespace, cores: int) -> tuple[list[str], list[Path]]:
    """The command that makes a study's answers on so many cores, and these."""
    configuration, results = ROOT / f"configs/{task}-minilm.yaml", arguments.output.resolve() / task
    study = read_study([configuration])
    answers = [
        results / f"answers/{task}/{pipeline}/seed{seed}.parquet"
        for pipeline in study.measured
        for seed in study.seeds
    ]
    settings: dict[str, Any] = {
        "pathvars": {"results": str(results), "logs": str(results / "logs")},
        "glue": str(arguments.glue.resolve()),
        "model": {"backbone": str(arguments.backbone.resolve())},
        "training": {"device": "gpu", "gpu_slots": arguments.jobs},
        "keep_checkpoints": False,  # then models are evaluated before more are trained
    }
    if not arguments.as_configured:
        settings["data"] = {"train_examples": None}
        settings["training"]["precision"] = "auto"
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--rerun-incomplete", "--keep-going"]
    command += ["--configfile", str(configuration), "--config"]
    command += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return [*command, "--", *map(str, answers)], answers


def kept(command: Sequence[str], path: Path, deadline: float) -> int:
    """Run a command unless what it said is there already; return its status. It is kept if that is 0."""
    if path.exists():
        print(f"{path}: done", flush=True)
        return 0
    said = path.with_suffix(".log")
    with said.open("w") as file:
        status = within(command, deadline, stdout=file)
    print(said.read_text(), flush=True)
    if status == 0:
        said.replace(path)
    return status


def within(command: Sequence[str], deadline: float, **pipes) -> int:
    """Run a command until the deadline, then ask all of its processes to end; trainings save their step."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    try:
        return process.wait(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return STOPPED
    finally:  # of an interrupted part too
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=SECONDS_TO_SAVE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["tests", "training", "studies"])
    parser.add_argument("--output", type=Path, default=Path("results/gpu"), help="folder of what is found")
    parser.add_argument("--minutes", type=float, default=9, help="after which the part ends and saves")
    parser.add_argument("--peak", help="operations per second of the GPU at its best, such as 989e12")
    parser.add_argument("--steps", type=int, default=200, help="timed steps of each training")
    parser.add_argument("--side-by-side", type=int, nargs="+", default=[4, 8], help="jobs on one GPU")
    parser.add_argument("--glue", type=Path, help="folder of GLUE")
    parser.add_argument("--backbone", type=Path, help="folder of a MiniLM")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--jobs", type=positive, default=16, help="trainings that share the GPU")
    parser.add_argument(
        "--as-configured", action="store_true", help="examples and precision of the configuration"
    )
    parser.add_argument("--workers", type=positive, default=4, help="processes of the tests")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What PipeOps does on a GPU: three parts, each within its minutes, each going on where it stopped.

    python benchmarks/gpu.py tests
    python benchmarks/gpu.py training --peak 989e12      # an H100 or H200 in bf16
    python benchmarks/gpu.py studies --glue /path/to/glue --backbone /path/to/minilm --jobs 8

tests     bf16 against fp32, leases, too little memory, CUDA graphs, a kill (`pytest -m gpu`)
training  RoBERTa-base, batch 8, 128 tokens: one job, and several on one card, over plain Trainer in fp32
studies   answers of SST-2, MRPC, QNLI and QQP with all training examples, trained and evaluated here

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
from pathlib import Path

import torch

from pipeops.hardware import device_name
from pipeops.study.config import read_study

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("sst2", "mrpc", "qnli", "qqp")
MEASURES = ("plain Trainer, fp32", "bf16", "all but compiling", "all, CUDA graphs")
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
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "tests/training/test_on_gpu.py"]
    return kept(command, arguments.output / "tests.txt", deadline)


def measure_training(arguments: argparse.Namespace, deadline: float) -> int:
    """Examples per second, a file for every number of jobs."""
    script = [sys.executable, "benchmarks/training.py", "--training", "fine-tuning", "--batch", "8"]
    script += ["--steps", str(arguments.steps), *(["--peak", arguments.peak] if arguments.peak else [])]
    for jobs in [1, *arguments.side_by_side]:
        measures = MEASURES if jobs == 1 else [MEASURES[0], MEASURES[-1]]
        options = ["--jobs", str(jobs), "--measures", *measures]
        if status := kept([*script, *options], arguments.output / f"training-{jobs}.txt", deadline):
            return status
    return 0


def run_studies(arguments: argparse.Namespace, deadline: float) -> int:
    """The answers of one study after the other, as far as the time goes."""
    if arguments.glue is None or arguments.backbone is None:
        raise SystemExit("studies: name the folders of GLUE and of the encoder by --glue and --backbone")
    for task in arguments.tasks:
        configuration, results = ROOT / f"configs/{task}-minilm.yaml", arguments.output.resolve() / task
        study = read_study([configuration])
        answers = [
            str(results / f"answers/{task}/{pipeline}/seed{seed}.parquet")
            for pipeline in study.measured
            for seed in study.seeds
        ]
        settings = {
            "pathvars": {"results": str(results), "logs": str(results / "logs")},
            "glue": str(arguments.glue.resolve()),
            "model": {"backbone": str(arguments.backbone.resolve())},
            "data": {"train_examples": None},
            "training": {"device": "gpu", "gpu_slots": arguments.jobs, "precision": "auto"},
        }
        command = [sys.executable, "-m", "snakemake", "--cores", str(os.cpu_count()), "--rerun-incomplete"]
        command += ["--keep-going", "--configfile", str(configuration), "--config"]
        command += [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        begun = time.monotonic()
        status = within([*command, "--", *answers], deadline)
        there = sum(Path(path).exists() for path in answers)
        minutes = (time.monotonic() - begun) / 60
        print(f"{task}: {there} of {len(answers)} answers are there, {minutes:.1f} min this time", flush=True)
        if status:
            return status
    return 0


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
    parser.add_argument("--jobs", type=int, default=8, help="trainings that share the GPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()

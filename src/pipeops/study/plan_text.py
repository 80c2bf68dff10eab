"""What a study costs, as plain data and as text."""

from typing import Any, Literal

from pipeops.models.shape import ModelShape
from pipeops.operators.declaration import FORWARD_AND_BACKWARD
from pipeops.study.planning import Plan, wall_seconds
from pipeops.text import markdown_table

_ALL_TOKENS = "Files after V are counted with all tokens; how many V keeps is known once the texts are read."


def plan_report(
    plan: Plan,
    original: ModelShape,
    *,
    examples_per_second: float,
    source: str,
    device: Literal["GPU", "CPU"],
    length: int,
    gpus: int,
    jobs_per_gpu: int,
) -> dict[str, Any]:
    """Join what ``planning.plan`` returns with times, JSON-ready.

    Args:
        plan: the plan.
        original: the shape of O.
        examples_per_second: of fine-tuning O at ``length`` tokens, one training at a time.
        source: where that rate is from.
        device: what has that rate.
        length: tokens per example.
        gpus: how many there are.
        jobs_per_gpu: trainings that share one; each is taken to run at the full rate divided by them.
    """
    rate = examples_per_second * FORWARD_AND_BACKWARD * original.flops(length)[-1]
    slots = gpus * jobs_per_gpu
    wall = wall_seconds(plan.trainings, flops_per_second=rate / jobs_per_gpu, slots=slots)
    operators: dict[str, dict[str, float]] = {}
    for training in plan.trainings:
        of = operators.setdefault(training.pipeline.operator, {"trainings": 0, "device_hours": 0.0})
        of["trainings"] += 1
        of["device_hours"] += training.flops / rate / 3600
    return {
        "jobs": dict(plan.jobs),
        "trainings": len(plan.trainings),
        "trainings_alone": plan.trainings_alone,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "graph_bytes": plan.graph_bytes,
        "peak_bytes_unkept": plan.peak_bytes_unkept,
        "counts_all_tokens": any(training.pipeline.transformed for training in plan.trainings),
        "operators": operators,
        "device_hours": plan.flops / rate / 3600,
        "device": device,
        "wall_hours": wall / 3600,
        "gpus": gpus,
        "jobs_per_gpu": jobs_per_gpu,
        "examples_per_second": examples_per_second,
        "rate_source": source,
        "length": length,
    }


def plan_text(report: dict[str, Any]) -> str:
    """Write what :func:`plan_report` returns for people."""
    device = report["device"]
    by_operator = [
        [name, str(of["trainings"]), f"{of['device_hours']:.3g}"] for name, of in report["operators"].items()
    ]
    disk = {
        "checkpoints": report["checkpoint_bytes"],
        "exported graphs": report["graph_bytes"],
        "both with keep_checkpoints: false, on one machine": report["peak_bytes_unkept"],
    }
    return "\n\n".join(
        [
            markdown_table(["Rule", "Jobs"], [[rule, str(count)] for rule, count in report["jobs"].items()]),
            f"{report['trainings']} trainings; {report['trainings_alone']} if pipelines did not share "
            "prefixes.",
            markdown_table(["Disk", "GB"], [[name, f"{b / 1e9:.3g}"] for name, b in disk.items()]),
            *([_ALL_TOKENS] if report["counts_all_tokens"] else []),
            markdown_table(["Operator", "Trainings", f"{device} hours"], by_operator),
            f"Training: {report['device_hours']:.3g} {device} hours, {report['wall_hours']:.3g} hours of "
            f"wall clock on {report['gpus']} {device}(s) with {report['jobs_per_gpu']} job(s) each,\nat "
            f"{report['examples_per_second']:.4g} examples per second of fine-tuning O at "
            f"{report['length']} tokens ({report['rate_source']}).\n"
            "Mean lengths of the tasks, without padding; measuring on CPUs is not counted, nor are "
            "pretrained models and what interrupted trainings resume from.",
        ]
    )

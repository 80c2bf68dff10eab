"""What a study costs, as text."""

from pipeops.models.shape import ModelShape
from pipeops.operators.declaration import FORWARD_AND_BACKWARD
from pipeops.study.planning import Plan, wall_seconds
from pipeops.text import markdown_table


def plan_text(
    plan: Plan,
    original: ModelShape,
    *,
    examples_per_second: float,
    source: str,
    length: int,
    gpus: int,
    jobs_per_gpu: int,
) -> str:
    """Print what ``planning.plan`` returns, with times.

    Args:
        plan: the plan.
        original: the shape of O.
        examples_per_second: of fine-tuning O at ``length`` tokens, one training at a time.
        source: where that rate is from.
        length: tokens per example.
        gpus: how many there are.
        jobs_per_gpu: trainings that share one; each is taken to run at the full rate divided by them.
    """
    rate = examples_per_second * FORWARD_AND_BACKWARD * original.flops(length)[-1]
    hours = plan.flops / rate / 3600
    slots = gpus * jobs_per_gpu
    wall = wall_seconds(plan.trainings, flops_per_second=rate / jobs_per_gpu, slots=slots) / 3600
    operators: dict[str, list[float]] = {}
    for training in plan.trainings:
        operators.setdefault(training.pipeline.operator, []).append(training.flops / rate / 3600)
    by_operator = [[name, str(len(each)), f"{sum(each):.3g}"] for name, each in operators.items()]
    gigabytes = {
        "checkpoints": plan.checkpoint_bytes,
        "exported graphs": plan.graph_bytes,
        "both with keep_checkpoints: false, on one machine": plan.peak_bytes_unkept,
    }
    return "\n\n".join(
        [
            markdown_table(["Rule", "Jobs"], [[rule, str(count)] for rule, count in plan.jobs.items()]),
            f"{len(plan.trainings)} trainings; {plan.trainings_alone} if pipelines did not share prefixes.",
            markdown_table(["Disk", "GB"], [[name, f"{b / 1e9:.3g}"] for name, b in gigabytes.items()]),
            markdown_table(["Operator", "Trainings", "GPU hours"], by_operator),
            f"Training: {hours:.3g} GPU hours, {wall:.3g} hours of wall clock on {gpus} GPU(s) with "
            f"{jobs_per_gpu} job(s) each,\nat {examples_per_second:.4g} examples per second of fine-tuning O "
            f"at {length} tokens ({source}).\nMean lengths of the tasks, without padding; measuring on CPUs "
            "is not counted, nor are pretrained models and what interrupted trainings resume from.",
        ]
    )

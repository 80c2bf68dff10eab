"""Joint training against operators one after the other: sizes, and what each affords in the same time."""

import math
from collections.abc import Sequence

import pandas as pd

from pipeops.analysis.curves import area_under, best_within
from pipeops.analysis.runs import RUN, curve_of, mean_and_sd, runs_of

BUDGETS = {"1": 1.0, "1_2": 1 / 2, "1_4": 1 / 4, "1_8": 1 / 8}
"""Times over O's at which accuracy is told, by the end of their column's name."""
RUN_WITH = ("", "LQ")
"""Inference operators that are compared."""
MEASURES = ["parameters_relative", "flops_relative", "acc_full", *(f"acc_time_{b}" for b in BUDGETS), "area"]
"""Parameters and FLOPs at full depth over O's; in percent: accuracy (or the task's other metric) at full
depth and of the best threshold within each of ``BUDGETS``, and the area under its curve over time
(``curves.area_under``)."""


def costeff(measurements: pd.DataFrame, pipelines: Sequence[str]) -> pd.DataFrame:
    """Compare pipelines by size, operations, and accuracy in the same time.

    Args:
        measurements: as ``measurements.read_runs`` returns them.
        pipelines: the trained pipelines that are compared.

    Returns:
        A row per dataset, pipeline and ``RUN_WITH``: columns dataset, metric, pipeline, inference, n_seeds,
        and for each of ``MEASURES`` its ``_mean`` and sample ``_sd`` over the seeds (NaN with one seed). A
        budget that is too small for one of the seeds has no accuracy (NaN).

    Raises:
        PipeOpsError: a pipeline was not measured.
    """
    rows = []
    for names, runs in runs_of(measurements, pipelines, table="costeff"):
        for inference in RUN_WITH:
            of_inference = runs[runs["inference"] == inference]
            per_seed = [_of_run(run) for _, run in of_inference.groupby(RUN, sort=False)]
            rows.append(names | {"inference": inference} | mean_and_sd(per_seed, MEASURES))
    return pd.DataFrame(rows)


def _of_run(run: pd.DataFrame) -> dict[str, float]:
    """Return the ``MEASURES`` of one run with one choice of inference operators."""
    deepest, curve = run.sort_values("threshold").iloc[-1], curve_of(run)
    within = {}
    for name, budget in BUDGETS.items():
        at = best_within(curve.time, curve.accuracy, budget)
        within[f"acc_time_{name}"] = math.nan if at is None else 100 * curve.accuracy[at]
    return within | {
        "parameters_relative": deepest["parameters_relative"],
        "flops_relative": deepest["flops_relative"],
        "acc_full": 100 * deepest["accuracy"],
        "area": 100 * area_under(curve),
    }

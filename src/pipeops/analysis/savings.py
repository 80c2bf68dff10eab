"""What Q and L save at the end of a pipeline, alone and together: Table 2 of Xin et al. 2022."""

import math
from collections.abc import Sequence

import pandas as pd

from pipeops.analysis.cumulativeness import combined_saving
from pipeops.analysis.runs import RUN, mean_and_sd, runs_of
from pipeops.errors import PipeOpsError
from pipeops.pipeline import INFERENCE

MEASURES = [
    "acc_raw", "acc_q", "acc_change_q", "time_raw_ms", "saving_q", "saving_l", "saving_lq", "saving_lq_est",
]  # fmt: skip
"""Accuracy (or the task's other metric) without and with Q and its relative change; the time; what Q, L and
both save of it; and what both save if the fractions that they leave multiply. In percent, except for the
time."""


def table2(measurements: pd.DataFrame, pipelines: Sequence[str]) -> pd.DataFrame:
    """Tabulate accuracy drops and time savings of Q and L, by (dataset, pipeline).

    Savings are computed within each run and then averaged over the seeds. A pipeline with exits is taken at
    its highest threshold.

    Args:
        measurements: as ``measurements.read_runs`` returns them.
        pipelines: the trained pipelines that get a row.

    Returns:
        Columns dataset, metric, pipeline, n_seeds, and for each of ``MEASURES`` its ``_mean`` and sample
        ``_sd`` (NaN with one seed).

    Raises:
        PipeOpsError: a pipeline was not measured.
    """
    rows = []
    for names, runs in runs_of(measurements, pipelines, table="table2"):
        per_seed = [_of_run(run) for _, run in runs.groupby(RUN, sort=False)]
        rows.append(names | mean_and_sd(per_seed, MEASURES))
    return pd.DataFrame(rows)


def _of_run(run: pd.DataFrame) -> dict[str, float]:
    """Return the ``MEASURES`` of one run."""
    deepest = run.sort_values("threshold").groupby("inference").last()
    if missing := [letters or "(none)" for letters in INFERENCE if letters not in deepest.index]:
        where = " ".join(str(run[column].iloc[0]) for column in RUN)
        raise PipeOpsError(f"{where}: not measured with {', '.join(missing)}; delete its curve and run again")
    accuracy, time = deepest["accuracy"], deepest["time_relative"]
    saving = 1 - time / time[""]
    fractions = {
        "acc_raw": accuracy[""],
        "acc_q": accuracy["Q"],
        # A metric that may be 0 or less has no relative change.
        "acc_change_q": accuracy["Q"] / accuracy[""] - 1 if accuracy[""] > 0 else math.nan,
        "saving_q": saving["Q"],
        "saving_l": saving["L"],
        "saving_lq": saving["LQ"],
        "saving_lq_est": float(combined_saving(saving["L"], saving["Q"])),
    }
    return {"time_raw_ms": deepest["time_ms"][""]} | {name: 100 * value for name, value in fractions.items()}

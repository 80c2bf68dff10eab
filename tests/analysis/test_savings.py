"""Table 2 on hand-worked measurements."""

import math

import pandas as pd
import pytest
from helpers import savings_run

from pipeops.analysis.savings import table2
from pipeops.errors import PipeOpsError


def test_a_row_by_hand() -> None:
    rows = savings_run("O", 1, accuracy=0.9, accuracy_q=0.89, time=1.0, left_q=0.4, left_l=0.2, left_lq=0.1)
    rows += savings_run("O", 2, accuracy=0.8, accuracy_q=0.80, time=1.2, left_q=0.5, left_l=0.2, left_lq=0.1)
    [row] = table2(pd.DataFrame(rows), ["O"]).to_dict("records")
    assert (row["dataset"], row["pipeline"], row["n_seeds"]) == ("sst2", "O", 2)
    assert row["acc_raw_mean"] == pytest.approx(85)
    assert row["acc_raw_sd"] == pytest.approx(10 / math.sqrt(2))
    assert row["acc_change_q_mean"] == pytest.approx(100 * (0.89 / 0.9 - 1) / 2)
    assert row["time_raw_ms_mean"] == pytest.approx(11)
    assert row["saving_q_mean"] == pytest.approx(55)
    assert row["saving_l_sd"] == pytest.approx(0)
    assert row["saving_lq_mean"] == pytest.approx(90)
    # Per seed 1 - 0.4 * 0.2 and 1 - 0.5 * 0.2.
    assert row["saving_lq_est_mean"] == pytest.approx((92 + 90) / 2)


def test_one_seed_has_means_without_sds() -> None:
    rows = savings_run("O", 1, accuracy=0.9, accuracy_q=0.9, time=1.0, left_q=0.4, left_l=0.2, left_lq=0.1)
    [row] = table2(pd.DataFrame(rows), ["O"]).to_dict("records")
    assert row["acc_raw_mean"] == pytest.approx(90)
    assert math.isnan(row["acc_raw_sd"])


def test_a_pipeline_with_exits_is_taken_at_its_highest_threshold() -> None:
    options = {"accuracy": 0.9, "accuracy_q": 0.8, "time": 1.0, "left_q": 0.4, "left_l": 0.2, "left_lq": 0.1}
    rows = savings_run("DE", 1, **options, thresholds=(0.0, 0.9, 1.01))
    [row] = table2(pd.DataFrame(rows[::-1]), ["DE"]).to_dict("records")
    assert row["acc_raw_mean"] == pytest.approx(90)
    assert row["time_raw_ms_mean"] == pytest.approx(10)
    assert row["saving_q_mean"] == pytest.approx(60)


def test_a_pipeline_that_was_not_measured_is_named() -> None:
    rows = savings_run("O", 1, accuracy=0.9, accuracy_q=0.9, time=1.0, left_q=0.4, left_l=0.2, left_lq=0.1)
    with pytest.raises(PipeOpsError, match=r"table2: DP was not measured on sst2; .* pipelines: \[DP\]"):
        table2(pd.DataFrame(rows), ["O", "DP"])


def test_a_variant_that_was_not_measured_is_named() -> None:
    rows = savings_run("O", 1, accuracy=0.9, accuracy_q=0.9, time=1.0, left_q=0.4, left_l=0.2, left_lq=0.1)
    table = pd.DataFrame(rows)
    with pytest.raises(PipeOpsError, match="sst2 O 1: not measured with Q; delete its curve and run again"):
        table2(table[table["inference"] != "Q"], ["O"])

"""Estimates: equations 1-5 on hand-worked curves and at their limits, and the study over seeds."""

import math

import numpy as np
import pytest
from helpers import measured
from hypothesis import given
from hypothesis import strategies as st

from pipeops.analysis.cumulativeness import (
    COMPOUND,
    NAIVE,
    combined_saving,
    cumulativeness,
    estimate_accuracy,
    estimate_time,
    summary,
)
from pipeops.analysis.paper import paper_table2
from pipeops.errors import PipeOpsError

TIME_E = [0.1, 0.4, 0.7, 1.0]
ACCURACY_E = [0.6, 0.8, 0.9, 0.92]
POSITIVE = st.floats(0.01, 1)
TIMES = st.lists(POSITIVE, min_size=1, max_size=8)


def test_equations_1_and_2() -> None:
    with_d = estimate_accuracy(ACCURACY_E, 0.9, accuracy_d=0.81)
    assert with_d == pytest.approx([0.54, 0.72, 0.81, 0.828])
    with_p = estimate_accuracy(ACCURACY_E, 0.9, accuracy_p=0.45)
    assert with_p == pytest.approx([0.3, 0.4, 0.45, 0.46])
    both = estimate_accuracy(ACCURACY_E, 0.9, accuracy_d=0.81, accuracy_p=0.45)
    assert both == pytest.approx([0.27, 0.36, 0.405, 0.414])


def test_equation_3() -> None:
    assert estimate_time(TIME_E, 2.0, time_p=1.5) == pytest.approx([0.075, 0.3, 0.525, 0.75])


def test_equation_4() -> None:
    # 0.1 + (0.4 - 0.1) * 0.5, and so on.
    assert estimate_time(TIME_E, 1.0, time_d=0.5) == pytest.approx([0.1, 0.25, 0.4, 0.55])


def test_equation_5() -> None:
    estimated = estimate_time(TIME_E, 1.0, time_d=0.5, time_p=0.8)
    assert estimated == pytest.approx([0.08, 0.2, 0.32, 0.44])


def test_nothing_added_changes_nothing() -> None:
    assert estimate_time(TIME_E, 0.7).tolist() == TIME_E
    assert estimate_accuracy(ACCURACY_E, 0.7).tolist() == ACCURACY_E


@given(TIMES, POSITIVE, POSITIVE)
def test_distillation_saves_nothing_at_the_first_exit(time_e, time_o, time_d) -> None:
    estimated = estimate_time(time_e, time_o, time_d=time_d)
    first = int(np.argmin(time_e))
    assert estimated[first] == pytest.approx(time_e[first])


@given(POSITIVE, POSITIVE)
def test_at_full_depth_distillation_saves_as_much_as_without_exits(time_o, time_d) -> None:
    # The first exit costs next to nothing here, as in a model of very many layers.
    least = 1e-9
    estimated = estimate_time([least, time_o], time_o, time_d=time_d)
    assert estimated[-1] / time_o == pytest.approx(time_d / time_o, rel=1e-5)


@given(TIMES, POSITIVE, POSITIVE, POSITIVE)
def test_estimates_do_not_depend_on_the_unit_of_time(time_e, time_o, time_d, time_p) -> None:
    estimated = estimate_time(time_e, time_o, time_d=time_d, time_p=time_p)
    in_ms = estimate_time(1e3 * np.array(time_e), 1e3 * time_o, time_d=1e3 * time_d, time_p=1e3 * time_p)
    assert in_ms == pytest.approx(1e3 * estimated)


def test_savings_multiply_what_is_left() -> None:
    assert combined_saving(0.5, 0.8) == pytest.approx(0.9)
    assert combined_saving() == 0
    assert combined_saving(0.5, [0.0, 1.0]) == pytest.approx([0.5, 1.0])


def test_the_papers_last_column_from_its_other_columns() -> None:
    table = paper_table2()
    assert len(table) == 16
    estimated = 100 * combined_saving(table["saving_q"] / 100, table["saving_l"] / 100)
    assert np.abs(np.round(estimated) - table["saving_lq_est"]).max() <= 1


def test_where_the_equations_hold_the_estimate_is_the_measurement() -> None:
    study = cumulativeness(measured(), ["DE", "PE", "DPE"])
    compound = study[study["estimate"] == COMPOUND]
    np.testing.assert_allclose(compound["accuracy_estimated"], compound["accuracy"])
    np.testing.assert_allclose(compound["time_relative_estimated"], compound["time_relative"])
    assert compound[["max_accuracy_error", "mean_time_error"]].to_numpy().max() < 1e-9
    curves = compound.drop_duplicates(["pipeline", "inference", "seed"])
    assert sorted(set(curves["pipeline"])) == ["DE", "DEP", "ED", "EP", "PE"]
    assert len(curves) == 5 * 4 * 2


def test_the_naive_estimate_is_wrong_where_quantisation_meets_pruning_and_only_there() -> None:
    study = cumulativeness(measured(), ["DE", "PE", "DPE"])
    naive = study[study["estimate"] == NAIVE]
    assert set(naive["inference"]) == {"Q", "LQ"}
    assert set(naive["pipeline"]) == {"PE", "EP", "DEP"}
    # It expects Q to leave 0.5 where it leaves 0.3.
    np.testing.assert_allclose(naive["mean_time_error"], 0.5 / 0.3 - 1)
    independent = cumulativeness(measured(pruned_q=0.5), ["PE"])
    assert independent[independent["estimate"].isin([COMPOUND, NAIVE])]["mean_time_error"].max() < 1e-9


def test_errors_of_a_hand_worked_curve() -> None:
    runs = measured(["O", "D", "P", "E", "DE"], seeds=[1])
    target = (runs["pipeline"] == "DE") & (runs["inference"] == "")
    runs.loc[target, "accuracy"] += [0.0, 0.02, 0.0]
    runs.loc[target, "time_relative"] *= [1.0, 1.0, 0.5]
    study = cumulativeness(runs, ["DE"])
    errors = study[study["inference"] == ""].iloc[0]
    # Estimated 0.595 at full depth, measured 0.2975, which is then before the point in the middle (0.32).
    assert errors["mean_time_error"] == pytest.approx(1 / 3)
    # At 0.2975 the estimate has 0.54 + 0.18 * (0.1975 / 0.22) = 0.70159, measured are 0.81.
    assert errors["max_accuracy_error"] == pytest.approx(100 * (0.81 - 0.7015909), abs=1e-3)


def test_the_summary_is_over_seeds() -> None:
    runs = measured(["O", "D", "P", "E", "DE"])
    shifted = (runs["pipeline"] == "DE") & (runs["seed"] == 2)
    runs.loc[shifted, "accuracy"] -= 0.04
    row = summary(cumulativeness(runs, ["DE"])).iloc[0]
    assert (row["n_seeds"], row["pipeline"], row["inference"]) == (2, "DE", "")
    assert row["max_accuracy_error_mean"] == pytest.approx(2)
    assert row["max_accuracy_error_sd"] == pytest.approx(math.sqrt(8))
    assert row["mean_accuracy_error_mean"] == pytest.approx(2)
    assert row["mean_time_error_mean"] == pytest.approx(0)
    single = summary(cumulativeness(measured(seeds=[3]), ["DE"]))
    assert single["max_accuracy_error_sd"].isna().all()


def test_a_part_that_was_not_measured_is_named_with_the_line_to_add() -> None:
    with pytest.raises(PipeOpsError, match=r"P was not measured; add it to pipelines: \[P\]") as refusal:
        cumulativeness(measured(["O", "D", "E", "DPE"]), ["DPE"])
    assert "'DPE' on sst2 is estimated from O, D, P, E" in str(refusal.value)
    with pytest.raises(PipeOpsError, match=r"no ordering of 'PE' was measured .* operator_sets: \[PE\]"):
        cumulativeness(measured(["O", "D", "P", "E", "DE"]), ["PE"])


def test_other_thresholds_than_those_of_e_are_refused() -> None:
    runs = measured(["O", "D", "P", "E", "DE"])
    runs.loc[(runs["pipeline"] == "DE") & (runs["threshold"] == 0.5), "threshold"] = 0.6
    with pytest.raises(PipeOpsError, match="DE: measured at other thresholds than E"):
        cumulativeness(runs, ["DE"])


def test_nothing_to_estimate_gives_an_empty_table() -> None:
    study = cumulativeness(measured(), [])
    assert study.empty
    assert summary(study).empty
    assert "max_accuracy_error" in study

"""Joint against sequential, on hand-worked measurements."""

import math

import pandas as pd
import pytest

from pipeops.analysis.joint import MEASURES, costeff
from pipeops.analysis.tables import costeff_markdown
from pipeops.errors import PipeOpsError


def run(pipeline: str, seed: int, points: list[tuple[float, float]], **sizes: float) -> list[dict]:
    """Rows of one run; with L and Q everything takes half the time."""
    keys = {"dataset": "sst2", "metric": "accuracy", "pipeline": pipeline, "seed": seed}
    rows = []
    for inference in ("", "L", "Q", "LQ"):
        for place, (time, accuracy) in enumerate(points):
            threshold = place / len(points) if len(points) > 1 else math.nan
            taken = time / 2 if inference == "LQ" else time
            row = {"inference": inference, "threshold": threshold, "accuracy": accuracy}
            rows.append(keys | row | {"time_relative": taken} | sizes)
    return rows


def measurements() -> pd.DataFrame:
    rows = []
    for seed, bonus in ((1, 0.0), (2, 0.02)):
        points = [(0.2, 0.6 + bonus), (0.4, 0.8 + bonus)]
        rows += run("C", seed, points, parameters_relative=0.25, flops_relative=0.3)
        rows += run("O", seed, [(1.01, 0.9 + bonus)], parameters_relative=1, flops_relative=1)
    return pd.DataFrame(rows)


def test_a_table_by_hand() -> None:
    table = costeff(measurements(), ["O", "C"])
    columns = [f"{measure}_{part}" for measure in MEASURES for part in ("mean", "sd")]
    assert table.columns.tolist() == ["dataset", "metric", "pipeline", "inference", "n_seeds", *columns]
    names = table[["pipeline", "inference", "n_seeds"]].to_numpy().tolist()
    assert names == [["O", "", 2], ["O", "LQ", 2], ["C", "", 2], ["C", "LQ", 2]]
    original, _, plain, fast = table.to_dict("records")
    assert original["acc_time_1_mean"] == pytest.approx(91)
    assert math.isnan(original["acc_time_1_2_mean"])
    assert math.isnan(original["acc_time_1_2_sd"])
    assert original["area_mean"] == 0
    assert (plain["parameters_relative_mean"], plain["flops_relative_mean"]) == pytest.approx((0.25, 0.3))
    assert plain["acc_full_mean"] == pytest.approx(81)
    assert plain["acc_full_sd"] == pytest.approx(math.sqrt(2))
    assert plain["acc_time_1_mean"] == pytest.approx(81)
    assert plain["acc_time_1_4_mean"] == pytest.approx(61)
    assert math.isnan(plain["acc_time_1_8_mean"])
    assert plain["area_mean"] == pytest.approx(100 * (0.2 * 0.71 + 0.6 * 0.81))
    assert fast["acc_time_1_8_mean"] == pytest.approx(61)


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(PipeOpsError, match=r"costeff: DPE was not measured on sst2; add it to pipelines"):
        costeff(measurements(), ["C", "DPE"])


def test_the_table_as_text() -> None:
    lines = costeff_markdown(costeff(measurements(), ["O", "C"])).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Pipeline"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    assert cells[0][5:] == ["t = 1", "t = 1/2", "t = 1/4", "t = 1/8", "Area, %"]
    assert cells[2] == ["O", "-", "1.000", "1.000", "91.0 ± 1.4", "91.0 ± 1.4", "-", "-", "-", "0.0 ± 0.0"]
    assert cells[4][:6] == ["C", "-", "0.250", "0.300", "81.0 ± 1.4", "81.0 ± 1.4"]
    one = costeff_markdown(costeff(measurements().query("seed == 1"), ["C"]))
    assert "80.0 " in one
    assert one.endswith("- one seed: no standard deviations.\n")

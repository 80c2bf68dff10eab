"""Reading measurements back: what is refused, and how curves are taken from them."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeops.analysis.curves import TradeoffCurve
from pipeops.analysis.runs import (
    curve_of,
    curves,
    pool,
    pool_exits,
    read_details,
    read_exits,
    read_measurements,
    read_runs,
)
from pipeops.errors import PipeOpsError
from pipeops.measuring.records import exits_path

HEADER = (
    "inference,threshold,metric,accuracy,time_ms,time_relative,mean_exit_layer,"
    "flops_relative,flops,parameters,parameters_relative,kernels\n"
)
ROWS = (
    ",0.5,accuracy,0.75,3.0,0.3,2.0,0.33,33,900,0.9,fp32\n"
    ",0.9,accuracy,0.875,6.0,0.6,4.0,0.66,66,900,0.9,fp32\n"
    "Q,0.5,accuracy,0.5,1.0,0.1,2.0,0.33,33,900,0.9,AVX512-VNNI\n"
    "LQ,0.5,accuracy,0.5,0.5,0.05,2.0,0.33,33,900,0.9,AVX512-VNNI\n"
)
EXITS = (
    "inference,exit_layer,metric,accuracy,time_ms,time_relative,flops_relative,flops,"
    "parameters,parameters_relative,kernels\n"
    ",1,accuracy,0.5,1.0,0.2,0.3,33,600,0.6,fp32\n"
    ",2,accuracy,0.75,3.0,0.6,0.6,66,900,0.9,fp32\n"
)


def curve(path: Path, *, inference: str = "") -> TradeoffCurve:
    table = read_measurements(path)
    return curve_of(table[table["inference"] == inference])


def write(folder: Path, text: str) -> Path:
    path = folder / "seed1.csv"
    path.write_text(text)
    return path


def test_a_curve_has_relative_time_and_accuracy_of_the_wanted_rows(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + ROWS)
    raw = curve(path)
    np.testing.assert_array_equal(raw.time, [0.3, 0.6])
    np.testing.assert_array_equal(raw.accuracy, [0.75, 0.875])
    np.testing.assert_array_equal(curve(path, inference="LQ").time, [0.05])


def test_mcc_may_be_negative(tmp_path: Path) -> None:
    text = HEADER + ROWS.replace(",accuracy,0.75", ",mcc,-0.75")
    np.testing.assert_array_equal(curve(write(tmp_path, text)).accuracy, [-0.75, 0.875])


def test_the_curve_of_a_model_without_exits_is_one_point(tmp_path: Path) -> None:
    point = curve(write(tmp_path, HEADER + ",,accuracy,0.9,10.0,1.0,6.0,1.0,100,1000,1.0\n"))
    assert (point.time.item(), point.accuracy.item()) == (1.0, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; delete it"),
        (HEADER, "has no rows; delete it"),
        (HEADER + ROWS[:-1], "cut off in the middle of its last line; delete it"),
        (HEADER + ROWS[:-8], "cut off in the middle of its last line; delete it"),
        (HEADER + ",0.5,accuracy,0.75,3.0\n", "line 2 has no number in column time_relative; delete it"),
        (
            HEADER + ROWS + ",0.5,accuracy,,3.0,0.3,2.0,0.33\n",
            "line 6 has no number in column accuracy; delete it",
        ),
        (
            HEADER + ",0.5,accuracy,0.75,3.0,inf,2.0,0.33\n",
            "line 2 has no number in column time_relative; delete it",
        ),
        (HEADER + ",0.5,accuracy,best,3.0,0.3,2.0,0.33\n", "not a file of measurements"),
        (HEADER + ROWS + "\0\0\0,,,,,,,,,,,,\n", "not a file of measurements"),
        (
            HEADER + ",0.5,accuracy,87.5,3.0,0.3,2.0,0.33,33,900,0.9\n",
            "column accuracy must hold fractions from 0 to 1",
        ),
        (
            "inference,threshold,accuracy\n,0.5,0.7\n",
            "column metric, time_ms, time_relative, mean_exit_layer",
        ),
        (
            HEADER.replace("metric,", "") + ROWS.replace("accuracy,", ""),
            "column metric is missing; delete it",
        ),
        (
            HEADER + ROWS.replace("accuracy", "f1"),
            "column metric has f1, and known are accuracy, macro_f1, mcc",
        ),
        (
            HEADER + ROWS.replace("accuracy", ""),
            "column metric has nothing, and known are accuracy, macro_f1",
        ),
        (HEADER + ROWS.replace(",0.75", ",-0.75"), "column accuracy must hold fractions from 0 to 1"),
        ("inf", "column inference"),
    ],
)
def test_reading_refuses_broken_files_with_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PipeOpsError) as refusal:
        read_measurements(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_cut_within_a_line_is_noticed(tmp_path: Path) -> None:
    text = HEADER + ROWS
    for end in range(len(text)):
        if not text[:end].endswith("\n"):
            with pytest.raises(PipeOpsError, match="delete it and run again"):
                read_measurements(write(tmp_path, text[:end]))


def test_reading_of_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(PipeOpsError, match=r"seed9\.csv: not found; measure it first"):
        read_measurements(tmp_path / "seed9.csv")


def test_seeds_are_pooled_named_by_their_paths_and_read_back(tmp_path: Path) -> None:
    for pipeline, seed in (("DE", 1), ("DE", 12), ("O", 1)):
        path = tmp_path / f"results/curves/sst2/{pipeline}/seed{seed}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + ROWS.replace("0.75", "0.7083333333333334"))
        exits_path(path).write_text(EXITS)
    folder = tmp_path / "results/curves/sst2"
    for pipeline in ("DE", "O"):
        seeds = sorted((folder / pipeline).glob("seed?.csv")) + sorted((folder / pipeline).glob("seed??.csv"))
        pool(seeds).to_csv(folder / f"{pipeline}.csv", index=False)
        pool_exits(seeds).to_csv(folder / f"{pipeline}.exits.csv", index=False)
    pooled = [folder / "DE.csv", folder / "O.csv"]
    runs = read_runs(pooled)
    assert runs.columns[:3].tolist() == ["dataset", "pipeline", "seed"]
    assert len(runs) == 3 * 4
    assert runs.seed.unique().tolist() == [1, 12]
    by_run = curves(runs)
    assert set(by_run) == {("sst2", "DE", 1), ("sst2", "DE", 12), ("sst2", "O", 1)}
    np.testing.assert_array_equal(by_run["sst2", "DE", 12].time, [0.3, 0.6])
    assert by_run["sst2", "O", 1].accuracy[0] == 0.7083333333333334  # to the last bit
    assert curves(runs, inference="Q")["sst2", "O", 1].time.tolist() == [0.1]
    assert curves(runs, inference="L") == {}
    assert read_exits(pooled).exit_layer.tolist() == [1, 2] * 3


def test_a_pooled_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results/curves/sst2/O/seed1.csv"
    path.parent.mkdir(parents=True)
    path.write_text(HEADER + ROWS)
    whole = path.parent.with_suffix(".csv")
    pool([path]).to_csv(whole, index=False)
    whole.write_text(whole.read_text()[:-5])
    with pytest.raises(PipeOpsError, match=r"sst2/O\.csv: cut off in the middle of its last line; delete it"):
        read_runs([whole])


def test_no_measurements_is_an_error_of_one_line() -> None:
    with pytest.raises(PipeOpsError, match="no measurements to read: name what this shows"):
        read_runs([])


@pytest.mark.parametrize("content", ['{"rows": 4', "{}", '{"rows": null}', "[1]"])
def test_damaged_details_are_named(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, HEADER + ROWS)
    path.with_suffix(".json").write_text(content)
    remedy = r"delete \S+seed1\.csv and run again with --forcerun curves"
    with pytest.raises(PipeOpsError, match=rf"seed1\.json: damaged \(.*\); {remedy}"):
        read_measurements(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(PipeOpsError, match=rf"seed1\.json: not found; {remedy}"):
        read_details(path)
    with pytest.raises(PipeOpsError, match=rf"seed1\.exits\.csv: not found; measure it first: {remedy}"):
        pool_exits([path])


def test_lines_that_are_missing_are_noticed(tmp_path: Path) -> None:
    seeds = []
    for seed in (1, 2):
        seeds.append(tmp_path / f"results/curves/sst2/O/seed{seed}.csv")
        seeds[-1].parent.mkdir(parents=True, exist_ok=True)
        seeds[-1].write_text(HEADER + ROWS)
        seeds[-1].with_suffix(".json").write_text('{"rows": 4}')
    whole = seeds[0].parent.with_suffix(".csv")
    table = pool(seeds)
    whole.with_suffix(".json").write_text(json.dumps([row for path in seeds for row in read_details(path)]))
    table[table.seed == 1].to_csv(whole, index=False)
    with pytest.raises(PipeOpsError, match=r"O\.csv: has 4 rows where 8 were measured; delete it and run"):
        read_runs([whole])
    seeds[1].write_text(HEADER + ROWS[: ROWS.index("LQ")])
    with pytest.raises(
        PipeOpsError, match=r"seed2\.csv: has 3 rows where 4 were measured; delete it and run"
    ):
        pool(seeds)

"""Price files: what is read, and what is refused."""

import json

import numpy as np
import pytest
from measured import LENGTHS, ORIGINAL, SHAPE, write_prices

from pipeops.errors import PipeOpsError
from pipeops.measuring.prices import read_prices


def test_prices_are_read_as_they_were_written(tmp_path):
    prices = read_prices(write_prices(tmp_path / "DE.csv"))
    assert (prices.shape, prices.original, prices.original_ms) == (SHAPE, ORIGINAL, 4.0)
    assert prices.costs["L"].lengths.tolist() == list(LENGTHS)
    assert prices.costs["Q"].relative.tolist() == [pytest.approx([0.05, 0.1, 0.15])]
    # By the rule of these prices the cost is linear in the length, and so it is between the lengths measured.
    between = prices.costs["L"].at(np.array([5, 12]))
    assert between.tolist() == [
        pytest.approx([0.1 * layer * (0.5 + length / 24) for layer in (1, 2, 3)]) for length in (5, 12)
    ]


def refused(path, message, **options):
    with pytest.raises(PipeOpsError, match=message) as caught:
        read_prices(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path.with_suffix("")) in str(caught.value)


def test_absent_prices_are_refused(tmp_path):
    refused(tmp_path / "DE.csv", r"DE\.json: not found; price DE first")
    path = write_prices(tmp_path / "DE.csv")
    path.unlink()
    refused(path, r"DE\.csv: not found; price DE first")


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (0, "not a price file"),
        (30, "is missing"),
        (300, "cut off|not a price file|above 0"),
        (-1, "cut off, 24 of 24 rows"),
        (-45, "cut off|above 0"),
    ],
)
def test_a_file_cut_off_is_refused(tmp_path, kept, message):
    path = write_prices(tmp_path / "DE.csv")
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, message)


def test_lost_rows_are_noticed(tmp_path):
    path = write_prices(tmp_path / "DE.csv")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    refused(path, "cut off, 22 of 24 rows; price again")


def test_rows_that_are_not_one_per_length_and_exit_are_refused(tmp_path):
    path = write_prices(tmp_path / "DE.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], lines[-2]]))
    refused(path, "has not one row per length and exit")
    path.write_text("".join(line.replace("LQ,", "L,") for line in lines))
    refused(path, "has no rows of LQ|not one row")


@pytest.mark.parametrize("number", ["", "nan", "-0.1", "0", "word"])
def test_prices_that_are_no_times_are_refused(tmp_path, number):
    path = write_prices(tmp_path / "DE.csv")
    path.write_text(path.read_text().replace(",0.3,", f",{number},"))
    refused(path, "above 0|not a price file")


def test_damaged_details_are_refused(tmp_path):
    path = write_prices(tmp_path / "DE.csv")
    details = path.with_suffix(".json")
    content = json.loads(details.read_text())
    for damaged in ("", "[]", "{}", json.dumps(content | {"original_ms": 3}), json.dumps(content)[:-9]):
        details.write_text(damaged)
        refused(path, r"DE\.json: damaged \(.*\); price again")


def test_prices_of_another_cpu_are_refused_unless_allowed(tmp_path):
    path = write_prices(tmp_path / "DE.csv", cpu={"model": "Abacus 3000"})
    refused(
        path, r"priced on Abacus 3000 \(int8: .*\), this is .*; price again here, or allow it: measuring: "
    )
    assert read_prices(path, this_cpu=False).record["cpu"]["model"] == "Abacus 3000"


def test_a_cpu_of_the_same_name_with_other_int8_instructions_is_another(tmp_path):
    """Virtual machines hide what a CPU is called."""
    path = write_prices(tmp_path / "DE.csv", int8_kernels="tally sticks")
    refused(
        path, r"priced on .* \(int8: tally sticks\), this is .* \(int8: .*\); price again here, or allow it"
    )
    assert read_prices(path, this_cpu=False).record["int8_kernels"] == "tally sticks"

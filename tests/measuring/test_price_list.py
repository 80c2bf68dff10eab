"""The price list of an encoder, and the lengths that it is made for."""

import numpy as np
import pandas as pd
import pytest
from export_models import tiny_shape
from helpers import write_examples
from measured import ANYWHERE, LENGTHS, MAX_LENGTH, write_prices

from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.measuring import price_list as module
from pipeops.measuring.price_list import (
    COLUMNS,
    mean_over_lengths,
    operator_sets,
    price_list,
    price_list_text,
    read_lengths,
)
from pipeops.pipeline import INFERENCE


def test_lengths_of_a_text_and_of_a_split(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("12\n7\n\n  31  \n")
    assert read_lengths(path).tolist() == [12, 7, 31]
    split = write_examples(tmp_path / "validation.parquet", rows=3)
    assert read_lengths(split).tolist() == [len(ids) for ids in load_tokenised(split).input_ids]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("12\n1.5\n", r"lengths\.txt: line 2: '1\.5' is no length; give a tokenised split"),
        ("12\n\n0\n", r"lengths\.txt: line 3: '0' is no length"),
        ("-4\n", r"line 1: '-4' is no length"),
        ("text of a sentence\n", r"line 1: 'text of a sentence' is no length"),
        ("\n", r"lengths\.txt: holds no lengths"),
        (b"\xff\xfe1", r"lengths\.txt: not readable"),
    ],
)
def test_texts_that_hold_anything_else_are_refused(tmp_path, content, message):
    path = tmp_path / "lengths.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PipeOpsError, match=message) as caught:
        read_lengths(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(PipeOpsError, match=r"lengths\.txt: not found; give a tokenised split"):
        read_lengths(tmp_path / "lengths.txt")
    path = tmp_path / "x.parquet"
    path.write_text("12\n")
    with pytest.raises(PipeOpsError, match=r"x\.parquet: not readable"):
        read_lengths(path)
    pd.DataFrame({"text": ["a"]}).to_parquet(path)
    with pytest.raises(PipeOpsError, match=r"x\.parquet: not readable"):
        read_lengths(path)


def test_orders_of_one_set_share_a_price():
    assert operator_sets(["O", "DE", "ED", "EDP"]) == {"O": ["O"], "DE": ["DE", "ED"], "DPE": ["EDP"]}


def test_means_over_lengths_are_linear_between_those_measured(tmp_path):
    table = pd.read_csv(write_prices(tmp_path / "DE.csv")).fillna({"inference": ""})
    means = mean_over_lengths(table, np.array([3, 5, 12]), MAX_LENGTH)
    assert means["inference"].tolist() == [letters for letters in INFERENCE for _ in range(3)]
    dynamic = means[means["inference"] == "LQ"]["time_relative"].tolist()
    factor = np.mean([0.5 + length / 24 for length in (3, 5, 12)]) / 2
    assert dynamic == pytest.approx([factor * layer / 10 for layer in (1, 2, 3)])
    assert means["time_relative"][2] == pytest.approx(0.3)


def shape_of(pipeline):
    return tiny_shape(exit_layers=(1, 2, 3) if set(str(pipeline)) & set("EC") else (3,))


def test_every_pipeline_is_on_the_list(tmp_path, monkeypatch):
    priced = []

    def measure(shape, original, *, operators, **_):
        assert original == shape_of("O")
        priced.append(operators)
        path = write_prices(tmp_path / f"{operators}.csv", shape, original=original)
        return pd.read_csv(path).fillna({"inference": ""}), {}

    monkeypatch.setattr(module, "measure_prices", measure)
    options = {"lengths": np.array(LENGTHS), "max_length": MAX_LENGTH, "settings": ANYWHERE}
    prices = price_list(shape_of, **options)
    assert [one for one in priced if "V" not in one] == ["O", "D", "P", "E", "C", "DP", "DE", "PE", "DPE"]
    assert [f"V{one}" for one in priced if "V" not in one and one != "O"] == [
        one for one in priced if "V" in one and one != "V"
    ]
    prices = prices[~prices["operators"].str.contains("V")]
    assert prices.columns.tolist() == COLUMNS
    assert len(prices) == 4 * (1 + 1 + 1 + 3 + 3 + 1 + 3 + 3 + 3)
    assert prices[prices["operators"] == "DE"]["pipelines"].unique().tolist() == ["DE, ED"]
    lines = price_list_text(prices).splitlines()
    assert len(lines) == 2 + 9
    assert lines[0].split("|")[1].strip() == "pipelines"
    [orders] = [line for line in lines if "DE, ED" in line]
    assert "0.4 - 1.2" in orders


def test_two_sets_are_really_priced():
    prices = price_list(
        shape_of,
        lengths=np.array([4, 6]),
        max_length=12,
        settings=ANYWHERE.model_copy(update={"lengths": 1}),
        pipelines=["O", "ED"],
    )
    assert prices["operators"].unique().tolist() == ["O", "DE"]
    assert (prices["time_ms"] > 0).all()

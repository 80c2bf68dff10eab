"""Pricing on random weights. How long anything takes is not asserted."""

import errno
import json
import tempfile

import numpy as np
import pandas as pd
import pytest
from export_models import SHAPES, random_tokens, tiny_shape
from measured import ANYWHERE, MAX_LENGTH, ORIGINAL, SHAPE

from pipeops.errors import PipeOpsError
from pipeops.measuring import contention
from pipeops.measuring import price as prices_of
from pipeops.measuring.price import (
    measure_prices,
    price,
    random_graph,
    random_input,
    random_weights,
    spread_lengths,
)
from pipeops.measuring.prices import COLUMNS, read_prices
from pipeops.models.shape import tensor_shapes
from pipeops.onnx.export import write
from pipeops.onnx.runtime import EarlyExitModel, force_exit
from pipeops.pipeline import INFERENCE

DATA = np.array([4, 5, 5, 6, 7, 7, 8, 9, 9, 9])


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    path = tmp_path_factory.mktemp("prices") / "DE.csv"
    settings = ANYWHERE.model_copy(update={"lengths": 3})
    price(SHAPE, ORIGINAL, path, lengths=DATA, max_length=MAX_LENGTH, settings=settings, operators="DE")
    return path


def test_every_variant_length_and_exit_is_priced_equally_often(priced):
    table = pd.read_csv(priced).fillna({"inference": ""})
    assert table.columns.tolist() == COLUMNS
    places = [
        (inference, length, layer)
        for inference in INFERENCE
        for length in ((4, 7, 9) if "L" in inference else (MAX_LENGTH,))
        for layer in (1, 2, 3)
    ]
    assert list(table[["inference", "length", "exit_layer"]].itertuples(index=False, name=None)) == places
    assert len(set(table["rounds"])) == 1
    assert table["rounds"][0] >= ANYWHERE.rounds
    assert (table[["time_ms", "time_relative"]] > 0).all(axis=None)
    details = json.loads(priced.with_suffix(".json").read_text())
    halves = table[["first_half", "second_half"]].div(table["time_relative"], axis=0)
    assert ((halves.min(axis=1) <= 1.02) & (halves.max(axis=1) >= 0.98)).all()
    assert (halves["first_half"] != halves["second_half"]).any()
    assert (table.time_ms / table.time_relative).to_numpy() == pytest.approx(details["original_ms"]["median"])


def test_where_a_price_comes_from_is_kept_beside_it(priced):
    details = json.loads(priced.with_suffix(".json").read_text())
    assert details["operators"] == "DE"
    assert details["parameters"]["settings"]["threads"] == 1
    assert details["cpu"]["cores"] >= 1
    assert details["packages"]["onnxruntime"]
    assert {"others_cores", "stolen_cores", "waited_seconds", "load_before", "cores"} <= set(
        details["contention"]
    )
    prices = read_prices(priced)
    assert (prices.shape, prices.original, prices.max_length) == (SHAPE, ORIGINAL, MAX_LENGTH)
    assert list(priced.parent.iterdir()) != []


def test_a_machine_too_busy_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(contention, "_used_now", lambda: 5.0)
    settings = ANYWHERE.model_copy(update={"others": 0.5, "wait": 0.2})
    with pytest.raises(PipeOpsError, match=r"^price of DE: the machine is too busy"):
        price(
            SHAPE,
            ORIGINAL,
            tmp_path / "DE.csv",
            lengths=DATA,
            max_length=MAX_LENGTH,
            settings=settings,
            operators="DE",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_of_temporary_files_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(prices_of, "random_model", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(PipeOpsError, match=f"^no space left on the disk of {tmp_path}/"):
        measure_prices(SHAPE, ORIGINAL, lengths=DATA, max_length=MAX_LENGTH, settings=ANYWHERE)


@pytest.mark.parametrize(
    ("lengths", "max_length", "message"),
    [
        ([4, 13], 12, r"lengths: an input of 13 tokens is longer than max_length, 12; raise it"),
        ([4, 13], 99, r"max_length: 99, but the backbone takes at most 24 tokens; lower it"),
    ],
)
def test_inputs_too_long_are_refused(tmp_path, lengths, max_length, message):
    with pytest.raises(PipeOpsError, match=message):
        price(
            SHAPE,
            ORIGINAL,
            tmp_path / "x.csv",
            lengths=np.array(lengths),
            max_length=max_length,
            settings=ANYWHERE,
        )


@pytest.mark.parametrize("name", SHAPES)
def test_random_weights_fit_every_shape_and_make_a_model_that_runs(name, tmp_path):
    shape = SHAPES[name]
    write(random_graph(shape, quantised=False, seed=0), tmp_path / "model.onnx")
    model = EarlyExitModel.load(tmp_path / "model.onnx", threads=1)
    assert model.shape == shape
    for layer in shape.exit_layers:
        answer = model.run(*random_tokens(shape, [9]), force_exit(layer, shape.exit_layers))
        assert answer.exit_layer == layer
        assert np.isfinite(answer.logits).all()


def test_random_weights_are_those_of_the_seed():
    first, again, other = (random_weights(tiny_shape(), seed=seed) for seed in (0, 0, 1))
    for name, dims in tensor_shapes(tiny_shape()).items():
        values = first(name)
        assert values.shape == dims
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, again(name))
        assert (values != other(name)).any()
    norm = first("backbone.embeddings.LayerNorm.weight")
    assert norm.mean() == pytest.approx(1, abs=0.02)


def test_an_input_is_padded_behind_its_tokens():
    ids, mask = random_input(SHAPE, 5, 12, seed=0)
    assert mask.tolist() == [[1] * 5 + [0] * 7]
    assert set(ids[0, 5:]) == {SHAPE.pad_token_id}
    assert ids.dtype == mask.dtype == np.int64


def test_lengths_spread_over_the_data():
    assert spread_lengths(np.array([30, *range(3, 23), 40]), 5) == [3, 8, 13, 19, 40]
    assert spread_lengths(np.array([7, 7, 7]), 5) == [7]
    assert spread_lengths(np.array([9, 4]), 1) == [4]


def test_several_threads_are_priced_too(tmp_path):
    settings = ANYWHERE.model_copy(update={"threads": 2, "lengths": 1})
    price(ORIGINAL, ORIGINAL, tmp_path / "O.csv", lengths=DATA, max_length=MAX_LENGTH, settings=settings)
    assert len(pd.read_csv(tmp_path / "O.csv")) == 4

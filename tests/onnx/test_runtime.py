"""Running exported models: the exit rule, its replay, and inputs that are refused."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from export_models import SHAPES, random_tokens, random_weights, tiny_shape, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from pipeops.errors import PipeOpsError
from pipeops.onnx.export import export
from pipeops.onnx.runtime import NEVER, EarlyExitModel, Profiler, chosen_exits, force_exit

QEMU = shutil.which("qemu-x86_64")


def load(shape, folder, **options) -> tuple[EarlyExitModel, Profiler]:
    export(write_checkpoint(folder, shape), folder, **options)
    return (
        EarlyExitModel.load(folder / "model.onnx", threads=1),
        Profiler.load(folder / "profile.onnx", threads=1),
    )


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    return load(SHAPES["roberta"], tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return load(SHAPES["bert-single"], tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("name", SHAPES)
def test_exits_taken_are_the_exits_replayed(name, tmp_path):
    shape = SHAPES[name]
    model, profiler = load(shape, tmp_path)
    rng = np.random.default_rng(0)
    taken = set()
    for seed in range(40):
        ids, mask = random_tokens(shape, [int(rng.integers(4, shape.max_length + 1))], seed)
        profile = profiler.run(ids, mask)
        thresholds = rng.uniform(1 / shape.num_labels, 1, len(shape.exit_layers) - 1)
        index = int(chosen_exits(profile.confidence, thresholds)[0])
        answer = model.run(ids, mask, thresholds)
        assert answer.exit_layer == shape.exit_layers[index]
        np.testing.assert_array_equal(answer.logits[0], profile.logits[0, index])
        taken.add(answer.exit_layer)
    assert taken == set(shape.exit_layers)


RUN = """
import json, sys
from pathlib import Path
import numpy as np
from pipeops.onnx.runtime import EarlyExitModel, NEVER
for path in sys.argv[1:]:
    model = EarlyExitModel.load(Path(path), threads=1)
    never = [NEVER] * (len(model.shape.exit_layers) - 1)
    ids = np.random.default_rng(0).integers(3, 50, size=(1, 20))
    print(json.dumps(model.run(ids, np.ones_like(ids), never).logits.tolist()))
"""


@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 is absent, which emulates a CPU without VNNI")
def test_int8_answers_are_the_same_on_a_cpu_without_dot_products_of_bytes(tmp_path):
    """Emulated: a Haswell. By default ONNX Runtime adds products of bytes in 16 bits there."""
    for name, shape in SHAPES.items():
        export(write_checkpoint(tmp_path / name, shape), tmp_path / name)
    graphs = [str(tmp_path / name / "model-int8.onnx") for name in SHAPES]
    command = [os.path.realpath(sys.executable), "-c", RUN, *graphs]  # a link would be followed by QEMU
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    here, there = (
        subprocess.run([*emulator, *command], env=environment, check=True, capture_output=True, text=True)
        for emulator in ([], [QEMU, "-cpu", "Haswell"])
    )
    answers = {name: json.loads(line) for name, line in zip(SHAPES, here.stdout.splitlines(), strict=True)}
    for name, line in zip(SHAPES, there.stdout.splitlines(), strict=True):
        np.testing.assert_allclose(json.loads(line), answers[name], atol=1e-5, err_msg=name)


def test_an_exit_is_taken_at_its_own_confidence_and_not_just_above(roberta):
    model, profiler = roberta
    ids, mask = random_tokens(model.shape, [11])
    first, second, _ = profiler.run(ids, mask).confidence[0]
    two = np.float32(2)
    assert model.run(ids, mask, [first, 0]).exit_layer == 1
    assert model.run(ids, mask, [np.nextafter(first, two), second]).exit_layer == 2
    assert model.run(ids, mask, [np.nextafter(first, two), np.nextafter(second, two)]).exit_layer == 3


def test_confidence_is_the_largest_probability(roberta):
    _, profiler = roberta
    profile = profiler.run(*random_tokens(profiler.shape, [9, 20, 5]))
    np.testing.assert_allclose(profile.confidence, probabilities(profile).max(axis=-1), rtol=1e-6)


def probabilities(profile):
    exponentials = np.exp(profile.logits.astype(np.float64))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 5])
def test_confidence_by_entropy(tmp_path, classes):
    model, profiler = load(tiny_shape(num_labels=classes), tmp_path, confidence="entropy")
    profile = profiler.run(*random_tokens(profiler.shape, [9, 20, 5, 14]))
    p = probabilities(profile)
    expected = np.exp((p * np.log(p)).sum(axis=-1))
    np.testing.assert_allclose(profile.confidence, expected, rtol=1e-5)
    assert (profile.confidence > 1 / classes).all()
    if classes == 2:  # then more probable is more sure
        largest = p.max(axis=-1).ravel()
        assert (np.argsort(largest) == np.argsort(profile.confidence.ravel())).all()
    ids, mask = random_tokens(profiler.shape, [9])
    first = profiler.run(ids, mask).confidence[0, 0]
    assert model.run(ids, mask, [first, 0]).exit_layer == 1
    assert model.run(ids, mask, [np.nextafter(first, np.float32(2)), 0]).exit_layer == 2


def test_a_certain_answer_has_no_entropy(tmp_path):
    shape = tiny_shape()
    weights = random_weights(shape)
    weights |= {f"exits.{k}.out_proj.bias": np.array([0, 1e4], np.float32) for k in shape.exit_layers}
    export(write_checkpoint(tmp_path, shape, weights), tmp_path, confidence="entropy")
    profiler = Profiler.load(tmp_path / "profile.onnx", threads=1)
    assert (profiler.run(*random_tokens(shape, [9])).confidence == 1).all()


def test_padding_changes_nothing(roberta):
    _, profiler = roberta
    ids, mask = random_tokens(profiler.shape, [6, 13, 20])
    batch = profiler.run(ids, mask)
    for row, length in enumerate(mask.sum(axis=1)):
        alone = profiler.run(ids[row : row + 1, :length], mask[row : row + 1, :length])
        np.testing.assert_allclose(alone.logits[0], batch.logits[row], atol=1e-5)


def test_layers_may_take_as_much_as_a_file_holds(roberta):
    options = roberta[0].session.get_session_options()
    assert int(options.get_session_config_entry("session.function_expansion_byte_limit")) == 2**31


def test_a_model_without_early_exits_takes_no_thresholds(single):
    model, profiler = single
    ids, mask = random_tokens(model.shape, [9])
    answer, profile = model.run(ids, mask), profiler.run(ids, mask)
    assert answer.exit_layer == 3
    assert profile.logits.shape == (1, 1, 3)
    np.testing.assert_array_equal(answer.logits, profile.logits[:, 0])
    with pytest.raises(PipeOpsError, match="thresholds: 1 given, the model takes 0"):
        model.run(ids, mask, [0.5])


@pytest.mark.parametrize("thresholds", [(), [0.5], [0.5] * 3, [[0.5, 0.5]]])
def test_thresholds_of_the_wrong_length_are_refused(roberta, thresholds):
    model, _ = roberta
    message = f"thresholds: {np.size(thresholds)} given, the model takes 2"
    with pytest.raises(PipeOpsError, match=message):
        model.run(*random_tokens(model.shape, [9]), thresholds)


def test_a_batch_is_refused_by_the_model_and_by_its_file(roberta):
    model, _ = roberta
    ids, mask = random_tokens(model.shape, [9, 9])
    with pytest.raises(
        PipeOpsError, match=r"batch of 2: the model was loaded for one input at a time; load it with"
    ):
        model.run(ids, mask, [0.5, 0.5])
    inputs = {"input_ids": ids, "attention_mask": mask, "thresholds": np.zeros(2, dtype=np.float32)}
    with pytest.raises(
        InvalidArgument, match=r"invalid dimensions for input: input_ids[\s\S]*Got: 2 Expected: 1"
    ):
        model.session.run(None, inputs)


def test_tokens_of_the_wrong_shape_are_refused(roberta):
    for runnable, more in zip(roberta, ([[2, 2]], []), strict=True):
        longest = runnable.shape.max_length
        with pytest.raises(PipeOpsError, match=f"input_ids: {longest + 1} tokens, .* at most {longest}"):
            runnable.run(*random_tokens(runnable.shape, [longest + 1]), *more)
        with pytest.raises(PipeOpsError, match=r"input_ids \[5\], attention_mask \[5\]"):
            runnable.run(np.zeros(5, int), np.ones(5, int), *more)
        with pytest.raises(PipeOpsError, match=r"input_ids \[1, 5\], attention_mask \[1, 4\]"):
            runnable.run(np.zeros((1, 5), int), np.ones((1, 4), int), *more)
        with pytest.raises(PipeOpsError, match="input_ids: inputs of different lengths; pad them"):
            runnable.run([[0, 5, 2], [0, 2]], [[1, 1, 1], [1, 1]], *more)
        for strange in (None, 2**64, 1.5, "5"):
            with pytest.raises(PipeOpsError, match="input_ids, attention_mask: must be integers; use the"):
                runnable.run([[0, strange, 2]], [[1, 1, 1]], *more)
        for nothing in ([[]], np.zeros((0, 4), int)):
            with pytest.raises(PipeOpsError, match="input_ids: no tokens; use the model's tokenizer"):
                runnable.run(nothing, nothing, *more)
        known = runnable.shape.vocab_size
        for other in (known, -1, -known, 2**40):
            with pytest.raises(
                PipeOpsError, match=f"token {other}, the model knows 0 to {known - 1}; use its"
            ):
                runnable.run([[0, other, 2]], [[1, 1, 1]], *more)
        for mask in ([2, 1, 1], [1, -1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]):
            with pytest.raises(
                PipeOpsError, match="attention_mask: must be 1 on tokens and 0 on the padding"
            ):
                runnable.run([[0, 5, 2]], [mask], *more)
        runnable.run(*random_tokens(runnable.shape, [longest]), *more)
        runnable.run([[0, 5, 2]], [[True, True, False]], *more)


def test_thresholds_that_are_no_numbers_are_refused(roberta):
    model, _ = roberta
    inputs = random_tokens(model.shape, [5])
    with pytest.raises(
        PipeOpsError, match="thresholds: nan is none; give 0 to leave always, above 1 never to"
    ):
        model.run(*inputs, [0.5, float("nan")])
    for strange in ("ab", [[0.5], [0.5, 0.5]], [0.5, "x"]):
        with pytest.raises(PipeOpsError, match="thresholds: no list of numbers; give 2"):
            model.run(*inputs, strange)


def test_files_that_are_no_model_are_refused(tmp_path):
    load(tiny_shape(), tmp_path)
    content = (tmp_path / "model.onnx").read_bytes()
    file = tmp_path / "damaged.onnx"
    for damaged in (b"", b"not a model", content[:1000], content[: len(content) // 2], content[:-1]):
        file.write_bytes(damaged)
        with pytest.raises(
            PipeOpsError, match=r"damaged\.onnx: not a readable model .*; export it again"
        ) as caught:
            EarlyExitModel.load(file, threads=1)
        assert "\n" not in str(caught.value)
    with pytest.raises(PipeOpsError, match=r"absent\.onnx: not found; export the model first"):
        EarlyExitModel.load(tmp_path / "absent.onnx", threads=1)
    with pytest.raises(PipeOpsError, match=r"kind 'straight' where 'early-exit' is needed"):
        EarlyExitModel.load(tmp_path / "profile.onnx", threads=1)
    with pytest.raises(PipeOpsError, match=r"kind 'early-exit' where 'straight' is needed"):
        Profiler.load(tmp_path / "model.onnx", threads=1)


def test_force_exit():
    np.testing.assert_array_equal(force_exit(1, (1, 2, 3)), [0, NEVER])
    np.testing.assert_array_equal(force_exit(2, (1, 2, 3)), [NEVER, 0])
    np.testing.assert_array_equal(force_exit(3, (1, 2, 3)), [NEVER, NEVER])
    np.testing.assert_array_equal(force_exit(6, (6,)), [])
    np.testing.assert_array_equal(force_exit(6, (4, 6)), [NEVER])
    with pytest.raises(ValueError):
        force_exit(5, (4, 6))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), exits=st.integers(1, 5), batch=st.integers(0, 4))
def test_chosen_exits_against_a_loop(data, exits, batch):
    levels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
    confidence = np.array(data.draw(st.lists(levels, min_size=batch * exits, max_size=batch * exits)))
    confidence = confidence.reshape(batch, exits).clip(max=1).astype(np.float32)
    thresholds = data.draw(st.lists(levels, min_size=exits - 1, max_size=exits - 1))
    expected = [
        next((k for k in range(exits - 1) if row[k] >= thresholds[k]), exits - 1) for row in confidence
    ]
    assert chosen_exits(confidence, thresholds).tolist() == expected


def test_what_cannot_be_run_together_is_refused(tmp_path):
    load(SHAPES["roberta"], tmp_path)
    model = EarlyExitModel.load(tmp_path / "model.onnx", threads=1, batch_tokens=64)
    for inputs in ([[0, 5, 2], []], [[]], [0, 5, 2]):
        with pytest.raises(PipeOpsError, match="is no list of token ids; give one or more"):
            model.run_many(inputs, [0.5, 0.5])
    with pytest.raises(PipeOpsError, match="thresholds: 1 given, the model takes 2"):
        model.run_many([], [0.5])
    for tokens in (-5, 9.5):
        with pytest.raises(PipeOpsError, match=f"batch_tokens: {tokens} is no number of tokens"):
            EarlyExitModel.load(tmp_path / "model.onnx", threads=1, batch_tokens=tokens)
    with pytest.raises(PipeOpsError, match=r"profile\.onnx: a graph of kind 'straight' where 'early-exit'"):
        EarlyExitModel.load(tmp_path / "profile.onnx", threads=1, batch_tokens=64)

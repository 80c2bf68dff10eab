"""Models from outside that would run code or take all memory: one line, and neither happens."""

import json
import re
import resource
import shutil
import subprocess
import sys

import onnx
import pytest
from deployed import SINGLE, write_study
from helpers import write_backbone, write_classifier, write_examples
from onnx import TensorProto, helper

MEMORY = 4 * 2**30
"""Bytes of address space in which a command must refuse; importing torch takes most of it."""


def refused(tmp_path, *arguments: str) -> str:
    """Run a command that must refuse; return its line."""
    run = subprocess.run(
        [sys.executable, "-m", "pipeops", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    assert run.returncode == 1, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith("error: ")
    return run.stderr


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "foreign"
    write_backbone(folder)
    (folder / "SHA256SUMS").unlink()
    return folder


@pytest.fixture
def foreign(encoder, tmp_path):
    return shutil.copytree(encoder, tmp_path / "foreign")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pickled(folder):
    import torch

    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def code(folder):
    change(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")


def tokenizer_code(folder):
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")


def growing(folder):
    ten = {"type": "Replace", "pattern": {"String": "w"}, "content": "w" * 10}
    change(folder / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [ten] * 9})


def padded(folder):
    padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"}
    change(folder / "tokenizer.json", padding=padding)


def huge_tokenizer(folder):
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(2**36)  # no block of it is on the disk


def header(folder):
    (folder / "model.safetensors").write_bytes((2**31).to_bytes(8, "little") + b"{}")


HARMS = {
    "pickled weights": (pickled, "no file named model.safetensors"),
    "code of its own": (code, "names code of its own \\(auto_map\\), which PipeOps never runs"),
    "a tokenizer's code": (tokenizer_code, "tokenizer_config.json: names code of its own"),
    "a text that grows": (growing, "normalizer makes a text up to 1,000,000,000 times longer"),
    "endless padding": (padded, "pads to 1,000,000,000,000 tokens"),
    "a huge tokenizer": (huge_tokenizer, "tokenizer.json: has 68,719,476,736 bytes"),
    "a header of 2 GB": (header, "model.safetensors"),
    "extra tokens": (
        lambda folder: change(folder / "tokenizer_config.json", extra_ids=10**9),
        "extra_ids: 1,000,000,000",
    ),
    "many classes": (lambda folder: change(folder / "config.json", num_labels=10**9), "num_labels: 1,000"),
    "many layers": (
        lambda folder: change(folder / "config.json", num_hidden_layers=10**9),
        "1,000,000,000 layers",
    ),
    "a wide layer": (lambda folder: change(folder / "config.json", intermediate_size=10**9), "weights"),
    "many words": (lambda folder: change(folder / "config.json", vocab_size=10**8), "weights"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmful_encoder_is_refused_where_it_is_fetched(foreign, tmp_path, harm):
    spoil, message = HARMS[harm]
    spoil(foreign)
    said = refused(tmp_path, "backbone", foreign, "--output", tmp_path / "base")
    assert re.search(message, said), said
    assert not (foreign / "ran").exists()
    assert not (tmp_path / "base/model.safetensors").exists()


@pytest.mark.parametrize("harm", ["code of its own", "a header of 2 GB", "many words"])
def test_so_is_a_harmful_classifier(tmp_path, harm):
    classifier = write_classifier(tmp_path / "classifier", "bert")
    (classifier / "SHA256SUMS").unlink()
    spoil, _ = HARMS[harm]
    spoil(classifier)
    refused(tmp_path, "backbone", classifier, "--classifier", "--output", tmp_path / "base")
    assert not (classifier / "ran").exists()


@pytest.mark.parametrize("harm", ["many layers", "a wide layer"])
def test_an_absurd_encoder_is_not_priced(foreign, tmp_path, harm):
    HARMS[harm][0](foreign)
    (tmp_path / "lengths.txt").write_text("5\n9\n")
    refused(tmp_path, "price", "--backbone", foreign, "--lengths", tmp_path / "lengths.txt")


@pytest.mark.parametrize("harm", ["a text that grows", "code of its own", "a header of 2 GB"])
def test_a_harmful_encoder_is_not_trained(foreign, tmp_path, harm):
    HARMS[harm][0](foreign)
    data = write_examples(tmp_path / "train.parquet")
    options = ("--data", data, "--output", tmp_path / "O", "--seed", "1", "--state", tmp_path / "state")
    refused(tmp_path, "train", "O", "--backbone", foreign, *options)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, "E", answers=False, prices=False)
    return folder


def outside(path):
    """A graph one of whose weights lies in another file."""
    graph = onnx.load(path)
    weight = next(
        attribute.t
        for function in graph.functions
        for node in function.node
        for attribute in node.attribute
        if attribute.t.raw_data
    )
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "../../../etc/passwd", "length": "64"}.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(graph.SerializeToString())


def test_weights_of_a_graph_in_other_files_are_refused(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "study")
    exported = copy / "onnx" / SINGLE / "E/seed1"
    (exported / "SHA256SUMS").unlink()
    outside(exported / "model.onnx")
    options = ("--dataset", SINGLE, "--seed", "1", "--results", copy, "--threshold", "0.5")
    said = refused(tmp_path, "deploy", "EL", tmp_path / "deployed", *options)
    assert (
        "model.onnx: not a readable model (it keeps weights in other files); export the model again" in said
    )


def test_those_of_a_deployed_model_too(study, tmp_path):
    options = ("--dataset", SINGLE, "--seed", "1", "--results", study, "--threshold", "0.5")
    command = [
        sys.executable,
        "-m",
        "pipeops",
        "deploy",
        "EL",
        str(tmp_path / "deployed"),
        *map(str, options),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "rows.csv").write_text("sentence,label\nw1 w2,no\n")
    (tmp_path / "deployed/SHA256SUMS").unlink()
    outside(tmp_path / "deployed/model.onnx")
    said = refused(tmp_path, "score", tmp_path / "deployed", "--data", tmp_path / "rows.csv")
    assert "model.onnx: damaged (it keeps weights in other files)" in said


def test_a_profile_that_names_a_file_outside_opens_none(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "study")
    exported = copy / "onnx" / SINGLE / "E/seed1"
    (exported / "SHA256SUMS").unlink()
    outside(exported / "profile.onnx")
    data = write_examples(tmp_path / "validation.parquet")
    options = (
        "--data",
        data,
        "--output",
        tmp_path / "a.parquet",
        "--dataset",
        SINGLE,
        "--pipeline",
        "E",
        "--seed",
        "1",
    )
    assert "profile.onnx: not a readable model" in refused(tmp_path, "evaluate", exported, *options)


def test_a_graph_without_functions_is_looked_at_too(tmp_path):
    from pipeops.onnx.graphs import load

    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([], "g", [], [], initializer=[weight])
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph), path)
    assert load(path).graph.initializer[0].name == "w"
    graph.initializer[0].data_location = TensorProto.EXTERNAL
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="other files"):
        load(path)

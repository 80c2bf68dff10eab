"""Models from outside that would run code or take all memory: one line, and neither happens."""

import json
import re
import shutil
import subprocess
import sys

import onnx
import pytest
from deployed import SINGLE, write_study
from helpers import unsealed, write_backbone, write_classifier, write_examples
from onnx import TensorProto, helper

from pipeops.onnx.graphs import load
from pipeops.pipeline import Pipeline
from pipeops.study.deploying import Choice, deploy_choice

MEMORY = 4 * 2**30
"""Bytes of address space in which all of it must be refused; importing torch takes most of them."""
RUN = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from pipeops import cli
for number, arguments in enumerate(json.loads(sys.argv[2])):
    sys.argv = ["pipeops", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        print(f"{number} status {end.code}", file=sys.stderr)
"""


def refused(*commands: list) -> list[str]:
    """Run commands that must refuse, one after the other in one process; return their lines."""
    given = json.dumps([list(map(str, arguments)) for arguments in commands])
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(MEMORY), given],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    lines = [line for line in run.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 2 * len(commands), run.stderr
    assert lines[1::2] == [f"{number} status 1" for number in range(len(commands))]
    assert all(line.startswith("error: ") for line in lines[::2])
    return lines[::2]


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
    (folder / "model.safetensors").write_bytes((2**31).to_bytes(8, "little") + bytes(10**6))


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
    "many words": (
        lambda folder: change(folder / "config.json", vocab_size=10**8),
        "its vocabulary 100000000|weights",
    ),
}


@pytest.fixture(scope="module")
def lines(encoder, tmp_path_factory):
    """What is said of harmful encoders where they are fetched, priced and trained, and of classifiers."""
    folder, asked = tmp_path_factory.mktemp("harmful"), {}
    for harm, (spoil, _) in HARMS.items():
        spoil(shutil.copytree(encoder, folder / harm))
        asked["backbone", harm] = ["backbone", folder / harm, "--output", folder / "base" / harm]
    for harm in ("code of its own", "a header of 2 GB", "many words"):
        classifier = write_classifier(folder / f"classifier, {harm}", "bert")
        HARMS[harm][0](classifier)
        asked["classifier", harm] = [
            "backbone",
            classifier,
            "--classifier",
            "--output",
            folder / "base" / harm,
        ]
    (folder / "lengths.txt").write_text("5\n9\n")
    for harm in ("many layers", "a wide layer"):
        asked["price", harm] = ["price", "--backbone", folder / harm, "--lengths", folder / "lengths.txt"]
    data = write_examples(folder / "train.parquet")
    options = ["--data", data, "--output", folder / "O", "--seed", "1", "--state", folder / "state"]
    for harm in ("a text that grows", "code of its own", "a header of 2 GB"):
        asked["train", harm] = ["train", "O", "--backbone", folder / harm, *options]
    said = dict(zip(asked, refused(*asked.values()), strict=True))
    assert not list(folder.rglob("ran"))
    assert not list(folder.rglob("base/**/model.safetensors"))
    return said


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmful_encoder_is_refused_where_it_is_fetched(lines, harm):
    assert re.search(HARMS[harm][1], lines["backbone", harm]), lines["backbone", harm]


def test_so_are_classifiers_prices_and_trainings(lines):
    assert len([what for what, _ in lines if what != "backbone"]) == 8
    for (what, harm), line in lines.items():
        if what == "price" or harm == "code of its own":
            assert re.search(HARMS[harm][1], line), line


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


def test_weights_of_a_graph_in_other_files_are_refused_and_no_file_is_opened(study, tmp_path):
    copy = shutil.copytree(study, tmp_path / "study")
    choice = Choice(results=copy, dataset=SINGLE, pipeline=Pipeline("EL"), seed=1, thresholds=[0.5])
    deploy_choice(choice, tmp_path / "deployed")
    unsealed(tmp_path)
    exported = copy / "onnx" / SINGLE / "E/seed1"
    for path in (exported / "model.onnx", exported / "profile.onnx", tmp_path / "deployed/model.onnx"):
        outside(path)
    (tmp_path / "rows.csv").write_text("sentence,label\nw1 w2,no\n")
    about = ["--dataset", SINGLE, "--seed", "1"]
    data = write_examples(tmp_path / "validation.parquet")
    output = ["--data", data, "--output", tmp_path / "answers.parquet", "--pipeline", "E"]
    deploying, scoring, evaluating = refused(
        ["deploy", "EL", tmp_path / "again", *about, "--results", copy, "--threshold", "0.5"],
        ["score", tmp_path / "deployed", "--data", tmp_path / "rows.csv"],
        ["evaluate", exported, *output, *about],
    )
    assert "model.onnx: not a readable model (it keeps weights in other files); export the model" in deploying
    assert "model.onnx: damaged (it keeps weights in other files)" in scoring
    assert "profile.onnx: not a readable model" in evaluating


def test_a_graph_without_functions_is_looked_at_too(tmp_path):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([], "g", [], [], initializer=[weight])
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph), path)
    assert load(path).graph.initializer[0].name == "w"
    graph.initializer[0].data_location = TensorProto.EXTERNAL
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="other files"):
        load(path)

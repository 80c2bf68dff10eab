"""Published answers are taken by the study that they are of, and refused to others."""

import json
import shutil

import pytest
from helpers import ROOT

from pipeops.errors import PipeOpsError
from pipeops.study.config import read_study
from pipeops.study.published import deciding, refuse_other_prices

DATA = ROOT / "docs/results/data/sst2-minilm"
CONFIG = ROOT / "configs/sst2-minilm.yaml"

ENCODER = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


@pytest.fixture
def asked(tmp_path):
    def read(changes="", *, answers=DATA):
        (tmp_path / "changes.yaml").write_text(f"answers: {answers}\n{changes}")
        return read_study([CONFIG, tmp_path / "changes.yaml"])

    return read


@pytest.mark.parametrize(
    "changes",
    [
        "",
        "seeds: [2]\noperator_sets: [DE]\npipelines: [O]\ntable2: [O]\ncumulativeness: []",
        "measuring: {thresholds: [0, 1.01]}\nexits: {confidence: entropy}",
        "training: {threads: 4, checkpoint_every: 1}",
        "model: {backbone: ./encoder}",  # a folder may hold the same model
    ],
)
def test_what_decides_no_answer_may_differ(asked, changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.json").write_text(json.dumps(ENCODER))
    assert asked(changes).answers == str(DATA)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("model: {pooling: first}", "model.pooling was mean there, and is first here"),
        ("model: {max_length: 64}", "model.max_length was 128 there, and is 64 here"),
        ("model: {backbone: bert-base-uncased}", "model.backbone was nreimers/MiniLM-L6-H384-uncased there"),
        ("data: {train_examples: null}", "data.train_examples was 4000 there, and is null here"),
        ("prices: {threads: 2}", "prices.threads was 1 there, and is 2 here"),
        ("pruning: {keep_heads: 0.5}", "pruning.keep_heads of P was 0.6667 there, and is 0.5 here"),
        ("training: {pipelines: {ED: {epochs: 6}}}", "training.epochs of ED was 3.0 there, and is 6.0 here"),
        ("training: {exit_loss: mean}", "training.exit_loss of C was sum there, and is mean here"),
        ("exits: {standardise: true}", "exits.standardise of C was false there, and is true here"),
        ("costeff: {compression: 4}", "costeff.compression of C was 6.0 there, and is 4.0 here"),
    ],
)
def test_other_models_are_refused_by_key_and_values(asked, changes, said):
    with pytest.raises(PipeOpsError) as raised:
        asked(changes)
    message = str(raised.value)
    assert message.startswith(f"config: answers: {DATA}/study.json: {said}")
    assert message.endswith("; set it to that, or set answers: null to train and measure")
    assert "\n" not in message


def test_a_home_is_written_out_as_snakemake_needs_it(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(DATA)
    assert asked(answers="~/data").answers == f"{tmp_path}/data"


def test_settings_that_are_absent_or_damaged_are_said_in_a_line(asked, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(DATA, copy)
    (copy / "study.json.sha256").unlink()
    for text in ("[]", "{", '{"pipelines": 1}', '{"pipelines": {"O": 1}}'):
        (copy / "study.json").write_text(text)
        with pytest.raises(PipeOpsError, match=r"study\.json: .*; publish the study again$"):
            asked(answers=copy)
    (copy / "study.json").unlink()
    with pytest.raises(PipeOpsError, match=r"study\.json: not found; write it by pipeops publish$"):
        asked(answers=copy)


def test_prices_of_several_cpus_are_refused_unless_they_are_allowed(asked, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(DATA, copy)
    path = copy / "prices/sst2/PE.json"
    path.write_text(path.read_text().replace("AVX512-VNNI", "AMX"))
    (copy / "prices/sst2/PE.csv.sha256").unlink()
    with pytest.raises(PipeOpsError) as raised:
        asked(answers=copy)
    first, xeon = copy / "prices/sst2/DE.json", "Intel(R) Xeon(R) Processor"
    assert str(raised.value) == (
        f"config: answers: {path}: priced on {xeon} (int8: AMX), {first} on {xeon} (int8: AVX512-VNNI); "
        "price all on one CPU, or allow it: measuring: {allow_other_cpu: true}"
    )
    with pytest.raises(PipeOpsError, match="int8: AMX"):
        refuse_other_prices(asked(), copy)  # as publishing does
    assert asked("measuring: {allow_other_cpu: true}", answers=copy)


def test_prices_may_be_of_another_folder_or_be_measured_here(asked, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(DATA / "prices", other / "prices")
    assert asked().priced_in == str(DATA)
    assert asked(f"prices_from: {other}").priced_in == str(other)
    assert asked("prices_from: here").priced_in is None
    assert asked("prices_from: here\nprices: {threads: 2}")  # those of the folder do not count
    with pytest.raises(PipeOpsError) as raised:
        asked(f"prices_from: {other}\nprices: {{threads: 2}}")
    assert str(raised.value) == (
        f"config: prices_from: {other}/prices/sst2/DE.json: priced with 1 threads, the study asks for 2; "
        "price again, or set prices.threads to 1"
    )
    (other / "prices/sst2/E.csv").unlink()
    with pytest.raises(PipeOpsError, match=r"config: prices_from: '.*' has no prices/sst2/E\.csv; name"):
        asked(f"prices_from: {other}")
    with pytest.raises(PipeOpsError, match=r"config: prices_from: here, but answers: null; name the folder"):
        asked("prices_from: here", answers="null")


@pytest.mark.parametrize(
    "configs",
    [
        ["sst2-minilm"],
        ["sst2-minilm", "sst2-matched"],
        ["sst2-minilm", "sst2-plateau"],
        ["mrpc-minilm"],
        ["mrpc-minilm", "mrpc-de"],
        ["qnli-minilm"],
        ["qnli-minilm", "qnli-plateau"],
        ["qqp-minilm"],
    ],
    ids=lambda names: names[-1],
)
def test_published_settings_are_those_of_their_study(configs):
    study = read_study([ROOT / f"configs/{name}.yaml" for name in configs])
    published = ROOT / "docs/results/data" / configs[-1] / "study.json"
    assert json.loads(published.read_text()) == json.loads(json.dumps(deciding(study)))

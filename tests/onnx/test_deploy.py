"""Deployed folders: same tokens as transformers, same labels as PyTorch, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from deployed import (
    PAIR,
    SINGLE,
    copied,
    deployed,
    random_texts,
    read_policy,
    results_of_ep,  # noqa: F401
    run_script,
    word_tokenizer,
    write_study,
)
from helpers import unsealed
from measured import MAX_LENGTH
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from pipeops.errors import PipeOpsError
from pipeops.onnx import classify
from pipeops.onnx import deploy as deploying
from pipeops.onnx.classify import BATCH_TOKENS, Classifier, Refused, batches
from pipeops.onnx.deploy import FILES, thresholds_per_exit

ODD = [
    *(
        "",
        " ",
        "😀 emoji 👩‍👩‍👧",
        "日本語のテキスト",
        "العربية",
        "a\x00b\x07c",
        "tab\tin",
        "a\nb",
        "\u2028line",
    ),
    *("</s> <s> <mask> [SEP] [MASK]", "x" * 300, "word " * 200, "e\u0301 \u200b\ufeff", "İSTANBUL ẞ"),
    "don't 3.14 $%",
]


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    return deployed(results, "EPL", tmp_path_factory.mktemp("deployed") / "EPL", thresholds=(0.6, 0.7, 0.8))


@pytest.mark.parametrize(("family", "dataset"), [("roberta", SINGLE), ("bert", PAIR)])
def test_labels_are_those_of_pytorch(family, dataset, tmp_path):
    import torch
    from transformers import AutoTokenizer

    model = write_study(tmp_path, "EP", family=family, dataset=dataset, answers=False, prices=False)
    checkpoint = tmp_path / "models" / dataset / "EP/seed1"
    padded, unpadded = (
        Classifier(deployed(tmp_path, pipeline, tmp_path / pipeline, dataset=dataset))
        for pipeline in ("EP", "EPL")
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    texts = random_texts(150, pair=dataset == PAIR)
    encoded = tokenizer(
        *map(list, zip(*texts, strict=True)), truncation="longest_first", max_length=MAX_LENGTH
    )
    labels = set()
    for text, ids in zip(texts, encoded["input_ids"], strict=True):
        ids = [token for token in ids if token != model.config.pad_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long)).logits[0]
        expected = model.config.id2label[int(logits.argmax())]
        for classifier in (padded, unpadded):
            answer = classifier(*text)
            assert (answer.label, answer.exit_layer) == (expected, 4)
            assert answer.confidence == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)
        labels.add(expected)
    assert labels == {"no", "yes"}


def byte_level(folder: Path) -> Path:
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        ["the plot was not dull, the acting fine. Héllo 12345"] * 20, 400, special_tokens=special
    )
    trained.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder / "saved")
    return folder / "saved"


def assert_same_tokens(checkpoint: Path, results: Path, folder: Path) -> None:
    """The deployed tokenizer gives what transformers gives for a whole column, as in training."""
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(checkpoint)
    place = Path(SINGLE, "EP", "seed1")
    for length in (8, 22):
        target = copied(results, folder / str(length))
        (target / "models" / place / "tokenizer.json").write_bytes(
            (checkpoint / "tokenizer.json").read_bytes()
        )
        output = deployed(target, "EPL", folder / f"out{length}", max_length=length)
        tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
        classifier = Classifier(output)
        wanted = auto(ODD, truncation="longest_first", max_length=length)["input_ids"]
        assert [tokenizer.encode(text).ids for text in ODD] == wanted
        assert [classifier.encode(text)[0].tolist() for text in ODD] == wanted
        pairs = list(product(ODD, ODD))
        firsts, seconds = map(list, zip(*pairs, strict=True))
        wanted = auto(firsts, seconds, truncation="longest_first", max_length=length)["input_ids"]
        assert [tokenizer.encode(*pair).ids for pair in pairs] == wanted
        assert [classifier.encode(*pair)[0].tolist() for pair in pairs] == wanted


def test_tokens_are_those_of_transformers(results, tmp_path):
    assert_same_tokens(byte_level(tmp_path), results, tmp_path)


def test_tokens_of_a_real_encoder_are_those_of_transformers(results, minilm, tmp_path):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(minilm).save_pretrained(tmp_path / "saved")
    assert_same_tokens(tmp_path / "saved", results, tmp_path)


def test_the_side_that_is_cut_is_the_checkpoints(results, tmp_path):
    target = copied(results, tmp_path / "study")
    config = target / "models" / SINGLE / "EP/seed1/tokenizer_config.json"
    config.write_text('{"truncation_side": "left"}')
    output = deployed(target, "EPL", tmp_path / "out")
    tokens = Tokenizer.from_file(str(output / "tokenizer.json")).encode(" ".join(f"w{i}" for i in range(30)))
    assert tokens.tokens[1:-1] == [f"w{number}" for number in range(20, 30)]
    assert Classifier(output).encode(" ".join(f"w{i}" for i in range(30)))[0].tolist() == tokens.ids


def test_the_folder_is_whole_and_says_how_the_model_is_run(folder, results):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert (folder / "classify.py").read_bytes() == Path(classify.__file__).read_bytes()
    assert json.loads((folder / "labels.json").read_text()) == {"0": "no", "1": "yes"}
    assert read_policy(folder) == {
        "pipeline": "EPL",
        "confidence": "max_probability",
        "exit_layers": [1, 2, 3, 4],
        "thresholds": [0.6, 0.7, 0.8],
        "max_length": MAX_LENGTH,
        "padding": False,
        "text_columns": ["sentence"],
        "batch_tokens": BATCH_TOKENS,
    }
    metadata = {entry.key: entry.value for entry in onnx.load(folder / "model.onnx").metadata_props}
    assert json.loads(metadata["pipeops.labels"]) == ["no", "yes"]
    assert metadata["pipeops.max_length"] == str(MAX_LENGTH)
    exported = onnx.load(results / "onnx" / SINGLE / "EP/seed1/model.onnx")
    assert exported.functions == onnx.load(folder / "model.onnx").functions


def test_q_takes_the_int8_graph_and_without_l_inputs_are_padded(results, tmp_path):
    output = deployed(results, "EPQ", tmp_path / "out")
    int8 = onnx.load(results / "onnx" / SINGLE / "EP/seed1/model-int8.onnx")
    assert onnx.load(output / "model.onnx").functions == int8.functions
    tokens = Tokenizer.from_file(str(output / "tokenizer.json")).encode("w1 w2")
    assert (len(tokens.ids), sum(tokens.attention_mask)) == (MAX_LENGTH, 4)
    assert set(tokens.ids[4:]) == {1}
    unpadded = Classifier(deployed(results, "EPLQ", tmp_path / "unpadded"))
    padded = Classifier(output)
    for text in random_texts(40, pair=False):
        assert padded(*text).label == unpadded(*text).label


def test_thresholds_decide_where_inputs_leave(results, tmp_path):
    for index in range(4):
        thresholds = tuple(0.0 if exit_ == index else 2.0 for exit_ in range(3))
        output = deployed(results, "EPL", tmp_path / "out", thresholds=thresholds)
        assert Classifier(output)("w1 w2 w3").exit_layer == index + 1


def test_a_model_without_exits(tmp_path):
    write_study(tmp_path, "D", answers=False, prices=False, layers=2)
    output = deployed(tmp_path, "DL", tmp_path / "out", thresholds=())
    assert Classifier(output)("w1 w2").exit_layer == 2


@pytest.mark.parametrize(
    ("given", "confidence", "message"),
    [
        ([-0.1], "max_probability", r"-0\.1 is out of range; give a value from 0"),
        ([2.5], "max_probability", r"2\.5 is out of range"),
        ([float("nan")], "entropy", "nan is out of range"),
        ([0], "patience", "0 is out of range; give a whole number of exits from 1 to 4"),
        ([1.5], "patience", "1.5 is out of range"),
        ([0.5, 0.5], "max_probability", "2 given; give one for all exits, or 3"),
    ],
)
def test_thresholds_out_of_range_are_refused(results, given, confidence, message):
    from pipeops.models.shape import ModelShape

    shape = ModelShape.from_checkpoint(results / "models" / SINGLE / "EP/seed1")
    with pytest.raises(PipeOpsError, match=f"--threshold: {message}"):
        thresholds_per_exit(given, shape, confidence)
    assert thresholds_per_exit([0.5], shape, "entropy") == (0.5, 0.5, 0.5)
    assert thresholds_per_exit([4], shape, "patience") == (4, 4, 4)
    assert thresholds_per_exit([], shape.cut(2), confidence) == ()
    with pytest.raises(PipeOpsError, match="has no early exits; leave the option out"):
        thresholds_per_exit([0.5], shape.cut(2), "max_probability")


@pytest.mark.parametrize("length", [2, 23])
def test_a_longest_input_out_of_range_is_refused(results, tmp_path, length):
    with pytest.raises(PipeOpsError, match=f"--max-length: {length} is out of range; .* from 3 to 22"):
        deployed(results, "EP", tmp_path / "out", max_length=length)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("models/sst2/EP/seed1/config.json", None, "config.json: not found"),
        ("models/sst2/EP/seed1/config.json", b"{", "config.json: not a PipeOps checkpoint"),
        ("models/sst2/EP/seed1/tokenizer.json", None, "tokenizer.json: not found; train the model again"),
        ("models/sst2/EP/seed1/tokenizer.json", b"{}", "tokenizer.json: not a tokenizer"),
        ("models/sst2/EP/seed1/tokenizer_config.json", b"[]", "tokenizer_config.json: damaged"),
        ("onnx/sst2/EP/seed1/model.onnx", None, "model.onnx: not found; export the model again"),
        ("onnx/sst2/EP/seed1/model.onnx", b"no graph", "model.onnx: not a readable model"),
    ],
)
def test_what_is_missing_or_damaged_is_named(results, tmp_path, path, content, message):
    study = unsealed(copied(results, tmp_path / "study"))
    if content is None:
        (study / path).unlink()
    else:
        (study / path).write_bytes(content)
    with pytest.raises(PipeOpsError, match=message) as refusal:
        deployed(study, "EPL", tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_graph_of_another_model_or_kind_is_refused(results, tmp_path):
    study = unsealed(copied(results, tmp_path / "study"))
    place = study / "onnx" / SINGLE / "EP/seed1"
    (place / "model.onnx").write_bytes((place / "profile.onnx").read_bytes())
    with pytest.raises(PipeOpsError, match=r"model\.onnx: a graph of kind 'straight'"):
        deployed(study, "EPL", tmp_path / "out")
    write_study(tmp_path / "other", "EP", answers=False, prices=False, layers=3)
    other = tmp_path / "other/onnx" / SINGLE / "EP/seed1/model.onnx"
    (place / "model.onnx").write_bytes(other.read_bytes())
    with pytest.raises(
        PipeOpsError, match=r"model\.onnx: is not of the model in .*EP/seed1; export it again"
    ):
        deployed(study, "EPL", tmp_path / "out")


def test_a_folder_with_other_content_is_left_alone(results, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    with pytest.raises(PipeOpsError, match=r"thesis\.txt: is not of a deployed model; delete it, or name"):
        deployed(results, "EPL", output)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    (output / "thesis.txt").rename(output / "README.md")
    with pytest.raises(PipeOpsError, match=r"README\.md: is not of a deployed model"):
        deployed(results, "EPL", output)
    assert (output / "README.md").read_text() == "mine"
    (output / "README.md").rename(output / ".gitattributes")
    deployed(results, "EPL", output)
    before = {path: path.read_bytes() for path in output.iterdir()}
    deployed(results, "EPL", output)
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_an_interrupted_deployment_leaves_the_earlier_model_or_is_refused(
    folder, results, tmp_path, monkeypatch
):
    output = copied(folder, tmp_path / "out")
    before = {path: path.read_bytes() for path in output.iterdir()}

    def fail(*_):
        raise OSError("gone")

    monkeypatch.setattr(deploying, "_prepared", fail)
    with pytest.raises(OSError, match="gone"):
        deployed(results, "EP", output)
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    monkeypatch.undo()
    rename = Path.replace

    def cut_off(self, target):
        if target == output / "tokenizer.json":
            raise OSError("gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    with pytest.raises(OSError, match="gone"):
        deployed(results, "EP", output, max_length=9)
    with pytest.raises(Refused, match=r"json: damaged \(its bytes .*; deploy the model again"):
        Classifier(output)
    assert not list(output.glob(".*"))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "labels.json", "policy.json"])
def test_a_flipped_bit_is_refused_in_one_line(folder, tmp_path, name):
    broken = copied(folder, tmp_path / "out")
    content = bytearray((broken / name).read_bytes())
    content[len(content) // 2] ^= 1
    (broken / name).write_bytes(content)
    run = run_script(broken, "w1 w2")
    assert run.returncode == 1
    assert run.stdout == b""
    line = (
        f"error: {broken / name}: damaged (its bytes are not those of SHA256SUMS); deploy the model again\n"
    )
    assert run.stderr.decode() == line
    (broken / "SHA256SUMS").unlink()
    assert b"SHA256SUMS: not found, so damage would not be seen" in run_script(broken, "w1 w2").stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", None, "model.onnx: not found"),
        ("model.onnx", b"no graph", "model.onnx: damaged"),
        ("tokenizer.json", None, "tokenizer.json: not found"),
        ("tokenizer.json", b"{}", "tokenizer.json: damaged"),
        ("labels.json", None, "labels.json: not found"),
        ("labels.json", b"[]", "labels.json: damaged"),
        ("labels.json", b'{"0": "no"}', "model.onnx and labels.json name other labels"),
        ("labels.json", b'{"0": "no", "2": "yes"}', "policy.json or labels.json is damaged"),
        ("policy.json", None, "policy.json: not found"),
        ("policy.json", b"{", "policy.json: damaged"),
        ("policy.json", b"{}", "policy.json or labels.json is damaged"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder, tmp_path, name, content, message):
    broken = unsealed(copied(folder, tmp_path / "out"))
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_bytes(content)
    with pytest.raises(Refused, match=re.escape(message)) as refusal:
        Classifier(broken)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith("; deploy the model again")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_length", 11, "another longest input"),
        ("thresholds", [0.5], "another number of thresholds"),
        ("text_columns", [], "0 columns of texts"),
        ("thresholds", 0, "thresholds that are no numbers"),
        ("thresholds", [[0.5, 0.5, 0.5]], "thresholds that are no numbers"),
        ("thresholds", [float("nan")] * 3, "thresholds that are no numbers"),
        ("thresholds", None, "thresholds that are no numbers"),
        ("max_length", float("inf"), "policy.json or labels.json is damaged"),
    ],
)
def test_a_policy_of_another_model_is_refused(folder, tmp_path, key, value, message):
    broken = unsealed(copied(folder, tmp_path / "out"))
    (broken / "policy.json").write_text(json.dumps(read_policy(broken) | {key: value}))
    with pytest.raises(Refused, match=message):
        Classifier(broken)


def test_the_script_imports_neither_torch_nor_transformers_nor_pipeops(folder):
    script = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); sys.dont_write_bytecode = True; import classify; "
        "classify.main(['w1 w2']); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    label, modules = run.stdout.splitlines()
    assert re.fullmatch(r"(no|yes)\t[01]\.\d{4}", label)
    assert {"onnxruntime", "tokenizers", "numpy"} <= set(modules.split())
    heavy = {"torch", "transformers", "pipeops", "onnx", "huggingface_hub", "pandas", "pyarrow"}
    assert not heavy & set(modules.split())


def lines_of(arguments, capsys, monkeypatch, folder):
    """Run the script's command line in this process; returns status, lines out and lines of errors."""
    capsys.readouterr()
    monkeypatch.setattr(classify, "__file__", str(folder / "classify.py"))
    monkeypatch.setattr("sys.stdout.reconfigure", lambda **_: None, raising=False)
    status = classify.main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_the_script_reads_arguments_files_and_standard_input(folder, tmp_path, capsys, monkeypatch):
    texts = ["w1 w2 w3", "", "w9 😀\u2028w8\tw7", "w4 w5"]
    classifier = Classifier(folder)
    wanted = [f"{answer.label}\t{answer.confidence:.4f}" for answer in map(classifier, texts)]
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode())
    assert lines_of(["--file", "texts.txt"], capsys, monkeypatch, folder) == (0, wanted, [])
    assert lines_of([texts[2]], capsys, monkeypatch, folder) == (0, [wanted[2]], [])
    run = run_script(folder, "--json", text="\n".join(texts).encode() + b"\n")
    assert run.stderr == b""
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert found == [classifier(text)._asdict() for text in texts]
    assert set(found[0]) == {"label", "confidence", "exit_layer", "truncated"}


def test_long_inputs_are_cut_with_a_warning_or_refused(folder, tmp_path, capsys, monkeypatch):
    fits, long = " ".join(["w5"] * 10), " ".join(["w5"] * 11)
    path = tmp_path / "texts.txt"
    path.write_text(f"{fits}\n{long}\n{long} w6\n")
    status, out, err = lines_of(["--file", path], capsys, monkeypatch, folder)
    assert (status, len(set(out)), len(out)) == (0, 1, 3)
    assert err == [
        f"warning: {path}, line 2: too long, the model takes at most 12 tokens; its end was cut",
        "warning: 2 texts were cut in all",
    ]
    status, out, err = lines_of(["--file", path, "--refuse-long"], capsys, monkeypatch, folder)
    assert (status, len(out), len(err)) == (1, 1, 1)
    assert "line 2: too long, the model takes at most 12 tokens; shorten it" in err[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"w1\n\xff\xfe\n", "line 2: is not UTF-8 (invalid start byte); convert it"),
        (None, "cannot be read (No such file or directory); name a file of texts"),
    ],
)
def test_unreadable_texts_are_refused(folder, tmp_path, capsys, monkeypatch, content, message):
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    status, _, err = lines_of(["--file", path], capsys, monkeypatch, folder)
    assert (status, len(err)) == (1, 1)
    assert message in err[0]
    status, _, err = lines_of(["w1 \udcff"], capsys, monkeypatch, folder)
    assert (status, err) == (1, ["error: text: a text that is not UTF-8; convert it"])


def test_a_reader_that_has_enough_is_no_error(folder):
    command = (
        f"yes w1 | head -2000 | {sys.executable} {folder}/classify.py | head -1; echo ${{PIPESTATUS[2]}}"
    )
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[1] == "0"
    assert run.stderr == ""


def test_pairs_are_two_arguments_or_a_tab(tmp_path, capsys, monkeypatch):
    write_study(tmp_path, "EP", family="bert", dataset=PAIR, answers=False, prices=False)
    folder = deployed(tmp_path, "EPL", tmp_path / "out", dataset=PAIR)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("w1", "w2").tokens == ["<s>", "w1", "</s>", "w2", "</s>"]
    answer = Classifier(folder)("w1 w2", "w3")
    wanted = (0, [f"{answer.label}\t{answer.confidence:.4f}"], [])
    assert lines_of(["w1 w2", "w3"], capsys, monkeypatch, folder) == wanted
    assert lines_of(["w1 w2\tw3"], capsys, monkeypatch, folder) == wanted
    status, _, err = lines_of(["w1"], capsys, monkeypatch, folder)
    assert (status, err) == (
        1,
        ["error: text: 1 texts where the model takes 2: sentence1, sentence2; separate two texts by one tab"],
    )


def test_pairs_are_cut_as_the_library_cuts_them_and_long_ones_need_no_more_memory(tmp_path):
    write_study(tmp_path, "EP", dataset=PAIR, answers=False, prices=False)
    for pipeline, length in product(("EP", "EPL"), (11, 12)):
        folder = deployed(tmp_path, pipeline, tmp_path / "out", dataset=PAIR, max_length=length)
        classifier, tokenizer = Classifier(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        for texts in product([" ".join(["w5"] * count) for count in range(15)], repeat=2):
            ids, mask, truncated = classifier.encode(*texts)
            expected = tokenizer.encode(*texts)
            assert (ids.tolist(), mask.tolist()) == (expected.ids, expected.attention_mask)
            assert truncated == bool(expected.overflowing)
        assert classifier(" ".join(["w5"] * 50_000), " ".join(["w6"] * 50_000)).truncated


def test_the_tests_tokenizer_truncates_and_pads_otherwise():
    tokens = word_tokenizer("roberta").encode(" ".join(["w1"] * 9))
    assert (len(tokens.ids), np.sum(tokens.attention_mask)) == (7, 5)


def test_batches_are_of_like_length_and_hold_every_input_once():
    lengths = [7, 3, 9, 3, 8, 4, 30, 7]
    found = list(batches(lengths, 16))
    assert found == [[1, 3, 5], [0, 7], [4], [2], [6]]
    assert list(batches(lengths, 0)) == [[1], [3], [5], [0], [7], [4], [2], [6]]
    assert list(batches([], 16)) == []


def test_texts_run_together_get_the_answers_that_they_get_alone(folder, tmp_path, capsys, monkeypatch):
    """In their order, whatever their lengths, and leaving where they leave alone."""
    texts = [text for (text,) in random_texts(120, pair=False)]
    alone = [Classifier(folder)(text) for text in texts]
    classifier = Classifier(folder, batch_tokens=100)
    together = classifier.answers([classifier.prepare(text) for text in texts])
    assert [answer._replace(confidence=0) for answer in together] == [a._replace(confidence=0) for a in alone]
    assert len({answer.exit_layer for answer in alone}) > 1
    expected = [answer.confidence for answer in alone]
    assert [answer.confidence for answer in together] == pytest.approx(expected, abs=1e-5)
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts))
    for more in ([], ["--batch-tokens", "0"], ["--batch-tokens", "5"]):
        status, out, _ = lines_of(["--file", path, *more], capsys, monkeypatch, folder)
        assert (status, [line.split("\t")[0] for line in out]) == (0, [answer.label for answer in alone])


def test_a_model_that_pads_or_is_int8_takes_texts_together_too(results, tmp_path):
    texts = [text for (text,) in random_texts(40, pair=False)]
    for pipeline, tokens in (("EP", BATCH_TOKENS), ("EPLQ", 0)):
        output = deployed(results, pipeline, tmp_path / pipeline)
        assert read_policy(output)["batch_tokens"] == tokens
        alone = [Classifier(output)(text) for text in texts]
        classifier = Classifier(output, batch_tokens=100)
        together = classifier.answers([classifier.prepare(text) for text in texts])
        expected = [answer.confidence for answer in alone]
        near = 1e-5 if tokens else 0.2
        assert [answer.confidence for answer in together] == pytest.approx(expected, abs=near)


def test_what_is_typed_is_answered_at_once(folder):
    command = [sys.executable, str(folder / "classify.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={}) as run:
        for text in ("w1 w2", "w3"):
            run.stdin.write(f"{text}\n")
            run.stdin.flush()
            assert run.stdout.readline().split("\t")[0] in ("no", "yes")


def test_more_threads_than_cores_are_said(folder, capsys, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    status, out, err = lines_of(["--threads", 3, "w1"], capsys, monkeypatch, folder)
    assert (status, len(out)) == (0, 1)
    assert err == ["warning: --threads: 3 on 2 cores, so they wait in turns"]


@pytest.mark.parametrize("threads", [0, 257, 10**8])
def test_a_number_of_threads_that_no_machine_has_is_refused(folder, capsys, monkeypatch, threads):
    with pytest.raises(SystemExit) as end:
        lines_of(["--threads", threads, "w1"], capsys, monkeypatch, folder)
    assert end.value.code == 2
    assert f"--threads: {threads} is no number of threads; give 1 to 256" in capsys.readouterr().err


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("sums", [True, False])
def test_batches_with_the_weights_of_another_model_are_refused(copy, sums):
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(content)
    if not sums:
        (copy / "SHA256SUMS").unlink()
    with pytest.raises(Refused, match="damaged" if sums else "batch.onnx and model.onnx are of two models"):
        Classifier(copy, batch_tokens=512)


def test_a_folder_written_anew_while_it_is_read_is_refused(copy, monkeypatch):
    session = onnxruntime.InferenceSession

    def meanwhile(path, *arguments, **options):
        opened = session(path, *arguments, **options)
        model = copy / "model.onnx"
        model.write_bytes(model.read_bytes() + b"\0")
        return opened

    monkeypatch.setattr(onnxruntime, "InferenceSession", meanwhile)
    with pytest.raises(Refused, match=r"batch\.onnx and model\.onnx are of two models"):
        Classifier(copy, batch_tokens=512)


@pytest.mark.parametrize("batch_tokens", [0, 512])
def test_a_folder_deployed_anew_while_it_is_read_is_refused(copy, monkeypatch, batch_tokens):
    session = onnxruntime.InferenceSession

    def meanwhile(*arguments, **options):
        shutil.copyfile(copy / "policy.json", copy / "new")
        (copy / "new").replace(copy / "policy.json")
        return session(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", meanwhile)
    with pytest.raises(Refused, match="was deployed anew while it was read; run again"):
        Classifier(copy, batch_tokens=batch_tokens)


def test_a_model_that_is_missing_is_named(copy):
    (copy / "model.onnx").unlink()
    with pytest.raises(Refused, match=r"model\.onnx: not found"):
        Classifier(copy, batch_tokens=512)


def test_files_may_be_links_as_in_the_cache_of_a_hub(copy, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for number, path in enumerate(sorted(path for path in copy.iterdir() if path.is_file())):
        (snapshot / path.name).symlink_to(path.rename(copy / str(number)))
    command = [sys.executable, str(snapshot / "classify.py")]
    run = subprocess.run(command, input="w1\n", capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")

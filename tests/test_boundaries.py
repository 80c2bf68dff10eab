"""Bad input of every kind: one line that names the file, key or value, before any work."""

import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deployed import write_study
from helpers import ROOT, unsealed, write_backbone, write_examples

from pipeops.cli import main
from pipeops.data.own import gather
from pipeops.errors import PipeOpsError
from pipeops.settings import TaskSection
from pipeops.study.config import Config, load_config, read_study
from pipeops.text import as_given, nearest

MODEL, EXPORTED = "results/models/sst2/E/seed1", "results/onnx/sst2/E/seed1"
ANSWERS, PRICES = "results/answers/sst2/E/seed1.parquet", "results/prices/sst2/E.csv"
TASK = {"files": {"train": "rows.csv"}, "text": "text", "label": "label", "held_out": 0.2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with an encoder, data, and what a study leaves of E."""
    folder = tmp_path_factory.mktemp("boundaries")
    write_study(folder / "results", "E")
    write_backbone(folder / "base")
    write_examples(folder / "train.parquet")
    write_examples(folder / "validation.parquet", rows=60)
    (folder / "lengths.txt").write_text("3\n7\n12\n")
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"w{i},{'ab'[i % 2]}\n" for i in range(40)))
    write_backbone(folder / "wide", hidden_size=32)
    counts = {key: {} for key in ("classes", "dropped", "empty", "repeated")}
    about = {"columns": ["text"], "labels": ["a", "b"], "rows": {"train": 1, "validation": 1}, **counts}
    (folder / "odd-rows").mkdir()
    (folder / "odd-rows/about.json").write_text(json.dumps(about | {"contradictory": 0, "overlapping": 0}))
    pq.write_table(pa.table({"x": [1]}), folder / "odd-rows/train.parquet")
    return folder


@pytest.fixture
def here(study, tmp_path, monkeypatch):
    """A copy of it, as the working directory; without digests, so that what is damaged is parsed."""
    folder = unsealed(shutil.copytree(study, tmp_path / "here"))
    (folder / "a-folder").mkdir()
    (folder / "a-file").write_text("x")
    os.mkfifo(folder / "a-pipe")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Run a command line that is refused; return its one line."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["pipeops", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == (2 if "Usage:" in said[0] else 1), said
        if stop.value.code == 2:
            assert said[-1].startswith("Error: Invalid value for ")
        else:
            said = [line for line in said if not line.startswith("note: ")]
            assert len(said) == 1, said
        return said[-1]

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def train(operator="O", output="out", *, backbone="base", data="train.parquet", settings="{}", **options):
    more = [text for name, value in options.items() for text in (f"--{name}", value)]
    arguments = ["--backbone", backbone, "--data", data, "--output", output, "--settings", settings]
    return ["train", operator, *arguments, "--seed", "1", *more]


def evaluate(model=EXPORTED, output="out.parquet", *, data="validation.parquet", pipeline="E", seed=1):
    return [
        *("evaluate", model, "--data", data, "--output", output),
        *("--dataset", "sst2", "--pipeline", pipeline, "--seed", seed),
    ]


def price(output="out.csv", *, lengths="lengths.txt", backbone="base", operators="O"):
    return [
        "price",
        "--backbone",
        backbone,
        "--lengths",
        lengths,
        "--operators",
        operators,
        "--output",
        output,
    ]


def check(
    output="out.csv",
    *,
    model=EXPORTED,
    original=EXPORTED,
    data="validation.parquet",
    answers=ANSWERS,
    prices=PRICES,
):
    return [
        *("check", model, "--original", original, "--data", data),
        *("--answers", answers, "--prices", prices, "--output", output),
    ]


def tokenise(output="out.parquet", *, backbone="base", **options):
    more = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    named = ["--backbone", backbone, "--output", output]
    return ["tokenise", "generated-sentiment", "train", *named, *more]


def rows(output="out", **changes):
    return ["rows", "own", "--output", output, "--settings", json.dumps(TASK | changes)]


# Outputs are looked at before the work.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (train(output="/etc/hostname"), "/etc/hostname: is there and is no folder; name another"),
        (train(output="/proc/x"), "/proc/x: no file can be made there; name another place"),
        (train(output="a-file/x"), "a-file/x: not a directory; a part of it is a file"),
        (train(state="a-file"), "a-file: is there and is no folder"),
        (train(state="out/state"), "--state: out/state is within --output, out"),
        (train("P", MODEL, parent=MODEL), f"{MODEL}: is an input, and would be overwritten"),
        (train(output="base"), "base: is an input, and would be overwritten"),
        (evaluate(output="a-folder"), "a-folder: is there and is no file"),
        (evaluate(output="a-pipe"), "a-pipe: is there and is no file"),
        (evaluate(output="/proc/x"), "/proc/x: no file can be made there"),
        (evaluate(output="validation.parquet"), "validation.parquet: is an input, and would be overwritten"),
        (evaluate(output="a\nb"), r"'a\nb': a name with line breaks"),
        (evaluate(output="n" * 250), f"{'n' * 250}: file name too long; shorten it"),
        (price("out.json"), "out.json: is where the JSON beside the result goes; name a .csv"),
        (price("a-folder"), "a-folder: is there and is no file"),
        (price("lengths.txt"), "lengths.txt: is an input, and would be overwritten"),
        (check("out.json"), "out.json: is where the JSON beside the result goes"),
        (check(PRICES), f"{PRICES}: is an input, and would be overwritten"),
        (check("/proc/x"), "/proc/x: no file can be made there"),
        (["export", MODEL, "--output", "a-file"], "a-file: is there and is no folder"),
        (["backbone", "base", "--output", "a-file"], "a-file: is there and is no folder"),
        (["backbone", "base", "--output", "base"], "base: is an input, and would be overwritten"),
        (tokenise("a-folder"), "a-folder: is there and is no file"),
        (rows("a-file"), "a-file: is there and is no folder"),
        (["init", "rows.csv", "tiny", "--output", "/proc/x"], "/proc/x: no file can be made there"),
        (["publish", "a-file"], "a-file: is there and is no folder"),
        (["predict", "--plot", "/proc/x.png"], "/proc/x.png: no file can be made there"),
        (
            ["deploy", "E", "/proc/x", "--dataset", "sst2", "--seed", "1"],
            "/proc/x: no file can be made there",
        ),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_before_the_work(here, refusal, arguments, message):
    before = contents(here)
    assert message in refusal(*arguments)
    assert contents(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(here, refusal):
    (here / "a-folder").chmod(0o500)
    assert "permission denied; change its permissions" in refusal(*evaluate(output="a-folder/x"))


# Inputs are named, whatever they hold.


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 3
    return (
        content[:place] + bytes(byte ^ 0xFF for byte in content[place : place + 64]) + content[place + 64 :]
    )


def no_object(content: bytes) -> bytes:
    return b"[]"


def nested(content: bytes) -> bytes:
    return b"[" * 100_000


def of_another(key: str, value: object):
    return lambda content: json.dumps(json.loads(content) | {key: value}).encode()


@pytest.mark.parametrize("change", [cut, flipped, no_object, nested])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("base/config.json", train()),
        ("base/config.json", ["backbone", "./base", "--output", "out"]),
        ("base/config.json", price()),
        ("base/tokenizer.json", train()),
        ("base/tokenizer.json", tokenise(max_length=8)),
        ("base/tokenizer.json", ["backbone", "./base", "--output", "out"]),
        (f"{MODEL}/config.json", train("P", parent=MODEL)),
        (f"{MODEL}/config.json", ["export", MODEL, "--output", "out"]),
        (f"{MODEL}/config.json", ["deploy", "EL", "out", "--dataset", "sst2", "--seed", "1"]),
        (f"{MODEL}/tokenizer.json", ["deploy", "EL", "out", "--dataset", "sst2", "--seed", "1"]),
        ("results/prices/sst2/E.json", check()),
    ],
)
def test_damaged_json_is_named(here, refusal, name, arguments, change):
    (here / name).write_bytes(change((here / name).read_bytes()))
    said = refusal(*arguments)
    assert Path(name).name in said or Path(name).parent.name in said
    assert "delete it" not in said
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "arguments", "message"),
    [
        ("base/model.safetensors", cut, train(), "no safetensors weights|model.safetensors: not readable"),
        (
            f"{MODEL}/model.safetensors",
            cut,
            train("P", parent=MODEL),
            "model.safetensors: not readable|model.safetensors: damaged",
        ),
        (
            f"{MODEL}/model.safetensors",
            cut,
            ["export", MODEL, "--output", "out"],
            "model.safetensors: damaged",
        ),
        (f"{EXPORTED}/profile.onnx", cut, evaluate(), "profile.onnx: not a readable model"),
        (f"{EXPORTED}/model-int8.onnx", cut, check(), "model-int8.onnx: not a readable model"),
        (ANSWERS, cut, check(), "seed1.parquet: not a file of answers"),
        (PRICES, cut, check(), "E.csv: cut off|E.csv: not a price file"),
        ("train.parquet", cut, train(), "train.parquet: not readable"),
        (
            f"{MODEL}/config.json",
            of_another("hidden_size", "many"),
            ["export", MODEL, "--output", "o"],
            "hidden_size",
        ),
        (
            f"{MODEL}/config.json",
            of_another("exit_layers", [9]),
            ["export", MODEL, "--output", "o"],
            "exit_layers",
        ),
        (
            f"{MODEL}/config.json",
            of_another("hidden_size", 10**9),
            ["export", MODEL, "--output", "o"],
            "weights",
        ),
        (
            f"{MODEL}/config.json",
            of_another("pipeline", "P"),
            train("P", parent=MODEL),
            "P occurs twice",
        ),
        ("base/config.json", of_another("num_attention_heads", 0), train(), "base/config.json: no encoder's"),
        ("base/config.json", of_another("hidden_size", 10**9), price(), "base/config.json: no encoder's"),
    ],
)
def test_damaged_files_are_named(here, refusal, name, change, arguments, message):
    (here / name).write_bytes(change((here / name).read_bytes()))
    said = refusal(*arguments)
    assert any(part in said for part in message.split("|")), said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (train(data="no.parquet"), "no.parquet: not found; "),
        (train(data="/etc/passwd"), "/etc/passwd: not readable"),
        (train(data="a-folder"), "a-folder: "),
        (train(backbone="nowhere"), "nowhere"),
        (train(backbone="a-file"), "a-file"),
        (train(backbone=MODEL), f"'{MODEL}' is a model that PipeOps trained; name the pretrained encoder"),
        (["backbone", f"./{MODEL}", "--output", "out"], "is a model that PipeOps trained"),
        (price(backbone=MODEL), "is a model that PipeOps trained"),
        (["export", "base", "--output", "out"], "not a PipeOps checkpoint but a 'roberta' model; train O"),
        (["export", "a-file", "--output", "out"], "a-file/config.json: not a directory"),
        (train("E", parent="base"), "not a PipeOps checkpoint but a 'roberta' model"),
        (train("E", parent=MODEL), "E occurs twice"),
        (train("X"), "operator 'X' cannot be trained"),
        (evaluate("a-folder"), "a-folder/profile.onnx: not found"),
        (evaluate(data="/etc/passwd"), "/etc/passwd: not readable"),
        (evaluate(pipeline="P"), "pipeline is 'E', where 'P' is wanted"),
        (check(answers="/etc/passwd"), "/etc/passwd: not a file of answers"),
        (check(prices="a-folder"), "a-folder.json: not found"),
        (check(original=EXPORTED), "is of another shape than the O beside which"),
        (check(data="train.parquet"), "train.parquet: not the examples that"),
        (price(lengths="/etc/passwd"), "/etc/passwd: line 1: "),
        (price(lengths="a-folder"), "a-folder: is a directory; name a file"),
        (price(lengths="/dev/zero"), "/dev/zero: is a device; name a file"),
        (price(operators="DD"), "D occurs twice"),
        ([*price(operators="D"), "--student", "wide"], "--student: wide has hidden size 32, the backbone 16"),
        (
            [*train("D", parent=MODEL), "--input", "student=a", "--input", "student=b"],
            "'student' is named twice",
        ),
        (tokenise(rows="odd-rows/train.parquet", max_length=8), "odd-rows: rows without a column 'text'"),
        (["score", "a-file", "--data", "rows.csv"], "a-file: is no folder"),
        (rows(files={"train": "a-folder"}), "'a-folder' is not a file"),
        (["init", "a-folder", "tiny"], "a-folder: its name ends in none of"),
        (["deploy", "E", "out", "--dataset", "../etc", "--seed", "1"], "unknown dataset '../etc'"),
    ],
)
def test_what_is_no_input_is_named_and_what_to_do(here, refusal, arguments, message):
    said = refusal(*arguments)
    assert any(part in said for part in message.split("|")), said
    assert "delete it" not in said


def rewritten(path: Path, **columns):
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, type=table.schema.field(name).type))
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("input_ids", [0, 5000, 2], "train.parquet: has tokens up to number 5000, but base knows 59 at most"),
        ("input_ids", [0, -1, 2], "a token below 0"),
        ("input_ids", [], "examples of 0 to"),
        ("input_ids", [5] * 100, "to 100 tokens"),
        ("label", 7, "labels from 0 to 7, of 2 classes"),
        ("label", None, "without tokens or label"),
    ],
)
def test_examples_that_no_tokeniser_wrote_are_refused(here, refusal, column, value, message):
    values = pq.read_table("train.parquet")[column].to_pylist()
    rewritten(here / "train.parquet", **{column: [*values[:3], value, *values[4:]]})
    assert message in refusal(*train())


def test_a_model_of_another_seed_or_with_other_classes_is_not_evaluated(here, refusal):
    config = here / MODEL / "config.json"
    config.write_bytes(of_another("seed", 2)(config.read_bytes()))
    from pipeops.onnx.export import export

    export(here / MODEL, here / EXPORTED)
    assert "seed is 2, where 1 is wanted; name another model" in refusal(*evaluate())
    table = pq.read_table("validation.parquet")
    about = json.loads(table.schema.metadata[b"pipeops"]) | {"labels": ["bad", "good"]}
    pq.write_table(table.replace_schema_metadata({"pipeops": json.dumps(about)}), "validation.parquet")
    assert "labels is ['no', 'yes'], where ['bad', 'good'] is wanted" in refusal(*evaluate(seed=2))


# Numbers have bounds, the same in the configuration and on the command line.


@pytest.mark.parametrize(
    "text",
    [
        *("prices: {threads: 1000}", "training: {threads: 1000000}", "prices: {threads: true}"),
        *("training: {epochs: 1.0e+300}", "training: {epochs: .inf}", "training: {epochs: .nan}"),
        "prices: {rounds: 100000000000, most_rounds: 100000000000}",
        *("seeds: [-1]", "seeds: [1099511627776]", 'seeds: ["1", "2"]', "seeds: [true]", "seeds: [1.0]"),
        *("training: {batch_size: 1000000000}", "training: {learning_rate: 1.0e+9}"),
        *("data: {train_examples: 1}", "data: {train_examples: 1000000000000}"),
        *("data: {validation_examples: -5}", "model: {max_length: 1000000000, backbone: some/id}"),
        *("model: {max_length: 1}", "training: {weight_decay: .inf}", "prices: {wait: 1.0e+300}"),
        *("measuring: {thresholds: [0, .inf]}", "measuring: {thresholds: [0, .nan, 1.01]}"),
        *("training: {gpus_per_training: 1000000}", "costeff: {compression: .inf}"),
        *("training: {operators: {D: {epochs: .inf}}}", "training: {pipelines: {DE: {threads: 1000}}}"),
        *(
            "pretraining: {seed: 1099511627776}",
            "commutativity: {margin: .nan}",
            "pruning: {keep_heads: .nan}",
        ),
        "measuring: {thresholds: [0.5, 1.01]}",  # the estimates with D need 0
    ],
)
def test_numbers_beyond_all_reason_are_refused(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(PipeOpsError) as refused:
        read_study([tmp_path / "study.yaml"])
    line, *others = str(refused.value).splitlines()
    assert all(other.startswith("config: ") for other in others)
    section, _, rest = text.partition(": ")
    key = rest.strip("{").partition(":")[0] if rest.startswith("{") else section
    assert line.startswith(f"config: {section}")
    assert key in line


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (tokenise(examples="-5"), "--examples"),
        (tokenise(examples="0"), "--examples"),
        (tokenise(max_length="1"), "--max-length"),
        (tokenise(max_length=10**9), "--max-length"),
        ([*evaluate(), "--threads", "1000"], "--threads"),
        ([*evaluate(), "--threads", "1.5"], "--threads"),
        (evaluate(seed=-1), "--seed"),
        (evaluate(seed=2**40), "--seed"),
        ([*train(), "--gpu-slots", 10**9], "--gpu-slots"),
        ([*train(), "--processes", "0"], "--processes"),
        (["recommend", "--max-time", "nan"], "--max-time"),
        (["recommend", "--max-time=-5ms"], "--max-time"),
        (["recommend", "--max-size", "infMB"], "--max-size"),
        (["recommend", "--min-accuracy", "nan"], "--min-accuracy"),
        (["recommend", "--min-accuracy", "90"], "--min-accuracy"),
        (["recommend", "--max-drop=-1"], "--max-drop"),
        (["plan", "--examples-per-second", "nan"], "--examples-per-second"),
        (["plan", "--examples-per-second", "inf"], "--examples-per-second"),
        (["plan", "--examples-per-second", "1", "--length", 10**12], "--length"),
        (["deploy", "E", "out", "--dataset", "sst2", "--seed", "1", "--within", "nan"], "--within"),
        (["deploy", "E", "out", "--dataset", "sst2", "--seed", "1", "--threshold", "nan"], "--threshold"),
    ],
)
def test_options_have_the_bounds_of_the_configuration(here, refusal, arguments, option):
    assert option in refusal(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"training": {"epochs": 1, "epochs": 2}}', "key 'epochs' stands there twice; remove one"),
        ('{"training": {"epochs": NaN}}', "training.epochs: input should be"),
        ('{"training": {"learning_rate": 1e999}}', "training.learning_rate: input should be"),
        ('{"trainign": {}}', "unknown key 'trainign' (did you mean 'training'?)"),
        ('{"training": {"epoch": 1}}', "unknown key 'training.epoch' (did you mean 'epochs'?)"),
        ('{"training": [1]}', "training: is a section of keys and values"),
        ("{", "--settings: no JSON"),
        ("[" * 100_000, "--settings: no JSON"),
        ('"x"', "--settings: 'x' is no object of sections"),
    ],
)
def test_settings_are_read_as_the_configuration_is(here, refusal, settings, message):
    assert message in refusal(*train(settings=settings))


# Configuration files.

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [1]\nseeds: [2]\n", "study.yaml, line 2: key 'seeds' stands there twice; remove one"),
        ("training:\n  epochs: 1\n  epochs: 2\n", "study.yaml, line 3: key 'epochs' stands there twice"),
        ("datasets: [SST-2]\n", "unknown dataset 'SST-2' (did you mean 'sst2'?)"),
        ("Training: {}\n", "unknown key 'Training' (did you mean 'training'?)"),
        ("pathvars: {results: x, logs: x}\n", "results and logs are one folder, 'x'; name two"),
        ('pathvars: {results: "a\\nb"}\n', r"pathvars.results: 'a\nb': line breaks"),
        ("pathvars: {results: 'a{b}'}\n", "'{' is not allowed; name another folder"),
        ("pathvars: {results: '<results>'}\n", "'<' is not allowed; name another folder"),
        ("pathvars: {results: '~/x'}\n", "begins with ~, which means something else"),
        ('glue: "a\\nb"\n', "line breaks and control characters are not allowed"),
        ('model: {backbone: "./a\\0"}\n', "line breaks and control characters are not allowed"),
        (f"model: {{backbone: ./{'n' * 5000}}}\n", "file name too long; shorten it"),
        (f"datasets: [{'x' * 10**5}]\n", "unknown dataset 'xxx"),
        (f"seeds: {list(range(20_000))}\n", "at most 1000 items"),
        (f"seeds: [0x{'f' * 20_000}]\n", "config: seeds.0: "),
        (f"{BOMB}seeds: *i\n", "config: "),
        (MERGES, "merges more than 1,000 keys; write them out"),
        (f"{BOMB}training: {{operators: {{D: {{epochs: *i}}}}}}\n", "config: "),
        ("seeds: " + "[" * 20_000, "study.yaml: no YAML (maximum recursion depth exceeded"),
        ("seeds: !!python/object/apply:os.system ['true']\n", "study.yaml: no YAML"),
        ("- 1\n", "study.yaml: holds no keys and values"),
        ("seeds: [1\n", "study.yaml: no YAML"),
        ("x" * 2**21, "study.yaml: no YAML (more than 262,144 characters)"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_what_is_wrong_in_a_configuration_is_said_shortly(here, refusal, monkeypatch, capsys, text, message):
    Path("study.yaml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["pipeops", "validate", "--configfile", "study.yaml"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert message in said
    assert len(said) < 6000
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.yaml", None, "no.yaml: not found; name a configuration file"),
        ("a-folder", None, "a-folder: is a directory; name a file"),
        ("/dev/zero", None, "/dev/zero: is a device; name a file"),
        ("latin.yaml", "# caf\xe9\n".encode("latin-1"), "latin.yaml: no YAML ('utf-8' codec can't decode"),
        ("nul.yaml", b"seeds: [1]\n\0", "nul.yaml: no YAML"),
    ],
)
def test_what_is_no_configuration_file_is_named(here, refusal, name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    assert message in refusal("validate", "--configfile", name)


def test_a_valid_configuration_is_told_so(here, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipeops", "validate", "--configfile", str(ROOT / "config.yaml")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    assert capsys.readouterr().out == "valid: generated-sentiment; 78 trainings, results in results\n"


def test_where_answers_are_published_nothing_is_trained(here, monkeypatch, capsys):
    files = [str(ROOT / "configs/mrpc-minilm.yaml"), "answers.yaml"]
    Path("answers.yaml").write_text(f"answers: {ROOT / 'docs/results/data/mrpc-minilm'}")
    monkeypatch.setattr(sys, "argv", ["pipeops", "validate", *(f"--configfile={name}" for name in files)])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == "valid: mrpc; 0 trainings, results in results/mrpc-minilm\n"


def test_the_configuration_that_snakemake_reads_first_is_read_here_too(here, monkeypatch, capsys):
    Path("config.yaml").write_text("seeds: [1, 2]\npathvars: {results: mine}")
    Path("study.yaml").write_text("seeds: [1]")
    said = []
    for arguments in ([], ["--configfile", "study.yaml"]):
        for snakefile in (False, True):
            rules = Path("workflow/rules/common.smk")
            rules.parent.mkdir(parents=True, exist_ok=True)
            rules.touch() if snakefile else rules.unlink(missing_ok=True)
            monkeypatch.setattr(sys, "argv", ["pipeops", "validate", *arguments])
            with pytest.raises(SystemExit):
                main()
            said.append(capsys.readouterr().out.partition("; ")[2])
    assert said == [
        "78 trainings, results in results\n",
        "26 trainings, results in mine\n",
        "13 trainings, results in results\n",
        "13 trainings, results in mine\n",
    ]


# Words.


def test_words_that_a_backbone_does_not_know_are_warned_about(here, monkeypatch, capsys):
    from pipeops.training.pretraining import START, UNKNOWN, word_tokenizer

    word_tokenizer().save_pretrained("base")
    gather("own", TaskSection.model_validate(TASK | {"files": {"train": "rows.csv"}}), here / "own")
    for backbone, dataset, options in (
        ("base", "generated-sentiment", ["--examples", "20"]),
        ("base", "own", ["--rows", "own/train.parquet"]),
    ):
        arguments = ["tokenise", dataset, "train", "--backbone", backbone, "--output", "o.parquet", *options]
        monkeypatch.setattr(sys, "argv", ["pipeops", *arguments, "--max-length", "20"])
        with pytest.raises(SystemExit):
            main()
        said = capsys.readouterr().out
        assert ("does not know 33% of the tokens" in said) == (dataset == "own")
    assert (START, UNKNOWN) == ("<s>", "<unk>")


# The mechanism.


def test_a_value_in_a_message_is_short():
    bomb = ["x"] * 9
    for _ in range(20):
        bomb = [bomb] * 9
    assert len(as_given(bomb)) <= 200
    assert as_given("a" * 10**6).count("a") < 100
    assert as_given(16**20_000) == "a very large int"
    assert as_given("a\nb") == r"'a\nb'"


def test_suggestions_overlook_case_and_hyphens():
    assert nearest("SST-2", ["sst2", "qnli"]) == " (did you mean 'sst2'?)"
    assert nearest("Generated_Sentiment", ["generated-sentiment"]) == " (did you mean 'generated-sentiment'?)"
    assert nearest("...", ["sst2"]) == ""


def test_all_mistakes_of_a_configuration_are_not_too_many_lines():
    with pytest.raises(PipeOpsError) as refused:
        load_config({"seeds": [-1] * 500})
    assert len(str(refused.value).splitlines()) == 21
    assert str(refused.value).endswith("config: and 480 more mistakes")
    assert Config().seeds

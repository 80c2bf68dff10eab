"""The engines that ``engines.py`` compares: how each is made from one checkpoint, opened and asked.

Others are set up as their own documentation does. All run on the same number of threads, and each in a
process of its own, so they may spin as they like between the operators of a run.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import openvino_stages
from numpy.typing import NDArray

from pipeops.data.tokenised import TokenisedSplit, load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.measuring.evaluate import answers
from pipeops.measuring.policies import first_reached, scores
from pipeops.models.shape import ModelShape
from pipeops.models.weights import WEIGHTS
from pipeops.onnx.classify import BATCH_TOKENS
from pipeops.onnx.export import export
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import NEVER, EarlyExitModel, Profiler, force_exit
from pipeops.provenance import write_json
from pipeops.settings import MeasuringSection

Ask = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""From ids and mask, both (batch, length), to logits, (batch, labels)."""
INSTALL = "pip install -r benchmarks/engines-requirements.txt"
CALIBRATION, FEWEST = 300, 100
"""Training rows that static scales are taken from, and how few are enough."""
POLICY = "policy.json"


@dataclass(frozen=True)
class Sources:
    """What all engines are made from."""

    single: Path
    """Checkpoint with one exit."""
    exits: Path
    """Checkpoint of the same task with an exit after every layer."""
    training: Path
    """Tokenised rows for calibration."""
    validation: Path
    """Tokenised rows that the policy is chosen on."""
    within: float
    """How much accuracy the policy may cost, in points below the single exit's in fp32."""

    @property
    def shape(self) -> ModelShape:
        """That of the model with one exit."""
        return ModelShape.from_checkpoint(self.single)


@dataclass(frozen=True)
class Opened:
    """An engine ready to run."""

    ask: Ask
    ask_random: Ask | None = None
    """For random tokens, which no exit rule means anything for; None: the same."""


@dataclass(frozen=True)
class Engine:
    """A way to run the model."""

    made: str
    """Name of its folder; engines that run the same files share it."""
    make: Callable[[Sources, Path], None]
    """Fills that folder."""
    open: Callable[[Sources, Path, int], Opened]
    """Opens what is there, to run on so many threads."""
    modules: tuple[str, ...] = ()
    """What must be installed to make it."""
    library: str = ""
    """What it runs on, where that is not onnxruntime."""
    batches: bool = True
    """Whether it takes more than one input at a time."""
    files: str = ""
    """Pattern of the files that are deployed; empty: it runs the checkpoint."""

    def deployed(self, sources: Sources, folder: Path) -> list[Path]:
        """The files that a user would deploy; the checkpoint's weights of an engine that has none."""
        if not self.files:
            return [sources.single / WEIGHTS]
        return [path for path in folder.glob(self.files) if path.is_file()]

    @property
    def missing(self) -> str:
        """What to install; empty where nothing is."""
        absent = [name for name in self.modules if find_spec(name) is None]
        return f"{', '.join(absent)} not installed; {INSTALL}" if absent else ""


def make_nothing(sources: Sources, folder: Path) -> None:
    """For engines that run the checkpoint itself."""


def make_ours(sources: Sources, folder: Path, *, exits: bool) -> None:
    """Export a checkpoint as ``pipeops export`` does; with exits, choose a policy in both precisions too."""
    export(sources.exits if exits else sources.single, folder)
    if not exits:
        return
    split = load_tokenised(sources.validation)
    right = _accuracy(_answers(folder.parent / "pipeops", split, quantised=False)[:, -1], split)
    chosen = {}
    for quantised in (False, True):
        chosen[_precision(quantised)] = choose_policy(
            _answers(folder, split, quantised=quantised),
            split.label_ids,
            least=right - sources.within / 100,
            layers=ModelShape.from_checkpoint(sources.exits).exit_layers,
        )
    write_json(folder / POLICY, chosen)


def choose_policy(
    logits: NDArray[np.float32], label_ids: NDArray[np.int64], *, least: float, layers: tuple[int, ...]
) -> dict[str, float]:
    """The lowest of the default thresholds that is at least this accurate, one for all exits.

    Args:
        logits: of every exit, shape (examples, exits, labels).
        label_ids: the right classes.
        least: accuracy, 0 to 1.
        layers: that the exits are after.

    Returns:
        Threshold, accuracy and mean exit layer; if none is accurate enough, those of never leaving early.
    """
    found = {}
    for threshold in (*MeasuringSection().thresholds, NEVER):
        found = with_threshold(logits, label_ids, threshold, layers=layers)
        if found["accuracy"] >= least:
            break
    return found


def with_threshold(
    logits: NDArray[np.float32], label_ids: NDArray[np.int64], threshold: float, *, layers: tuple[int, ...]
) -> dict[str, float]:
    """A threshold for all exits, how accurate it is, and where inputs leave on average."""
    taken, said = first_reached(scores(logits, "max_probability"), threshold), logits.argmax(axis=-1)
    return {
        "threshold": threshold,
        "accuracy": float((said[np.arange(len(said)), taken] == label_ids).mean()),
        "mean_exit_layer": float(np.array(layers)[taken].mean()),
    }


def open_ours(sources: Sources, folder: Path, threads: int, *, quantised: bool) -> Opened:  # noqa: ARG001
    """The deployed graph for one input; for batches the one that has no branches, once one is asked for."""
    model = EarlyExitModel.load(graph_path(folder, "model", quantised=quantised), threads=threads)
    straight: list[Profiler] = []

    def ask(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        if len(ids) == 1:
            return model.run(ids, mask).logits
        if not straight:
            path = graph_path(folder, "profile", quantised=quantised)
            straight.append(Profiler.load(path, threads=threads))
        return straight[0].run(ids, mask).logits[:, -1]

    return Opened(ask)


def open_exits(sources: Sources, folder: Path, threads: int, *, quantised: bool, policy: bool) -> Opened:  # noqa: ARG001
    """Early exits: by the policy, with random tokens leaving where it does on average, or at full depth."""
    path = graph_path(folder, "model", quantised=quantised)
    model, batched = EarlyExitModel.load(path, threads=threads), list[EarlyExitModel]()

    def run(
        ids: NDArray[np.int64], mask: NDArray[np.int64], thresholds: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if len(ids) == 1:
            return model.run(ids, mask, thresholds).logits
        if not batched:
            batched.append(EarlyExitModel.load(path, threads=threads, batch_tokens=BATCH_TOKENS))
        return batched[0].run_batch(ids, mask, thresholds).logits

    return _leaving(run, model.shape.exit_layers, folder, _precision(quantised) if policy else None)


def _leaving(
    run: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]],
    layers: tuple[int, ...],
    folder: Path,
    policy: str | None,
) -> Opened:
    """A model with early exits at full depth, or by a policy of the folder."""

    def leaving(thresholds: NDArray[np.float32]) -> Ask:
        return lambda ids, mask: run(ids, mask, thresholds)

    if policy is None:
        return Opened(leaving(force_exit(layers[-1], layers)))
    chosen = json.loads((folder / POLICY).read_text())[policy]
    average = min(layers, key=lambda layer: abs(layer - chosen["mean_exit_layer"]))
    thresholds = np.full(len(layers) - 1, chosen["threshold"], dtype=np.float32)
    return Opened(leaving(thresholds), leaving(force_exit(average, layers)))


def make_onnxruntime(sources: Sources, folder: Path, *, quantised: bool, fused: bool = False) -> None:
    """torch's export and ``quantize_dynamic``; if asked, ONNX Runtime's own fusions for BERT between them."""
    import torch
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    exported, path = folder / "exported.onnx", folder / "model.onnx"
    torch.onnx.export(
        # The optimizer knows BERT's attention as it was written before PyTorch had one of its own.
        _torch_model(sources, attention="eager" if fused else "sdpa"),
        _example(torch),
        str(exported),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")},
        opset_version=17,
        dynamo=False,
    )
    if fused:
        from onnxruntime.transformers.optimizer import optimize_model

        heads = sources.shape.heads_per_layer[0]
        model = optimize_model(
            str(exported), "bert", num_heads=heads, hidden_size=sources.shape.hidden_size, opt_level=0
        )
        fused_operators = model.get_fused_operator_statistics()
        if not fused_operators.get("Attention"):
            raise PipeOpsError("ONNX Runtime's optimizer fused no Attention of this export")
        write_json(folder / "fused.json", fused_operators)
        model.save_model_to_file(str(exported))
    if quantised:
        prepared = folder / "prepared.onnx"
        if fused:
            exported.rename(prepared)
        else:
            quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
            exported.unlink()
        # Types are not inferred through fused operators.
        known = {"DefaultTensorType": TensorProto.FLOAT}
        quantize_dynamic(prepared, path, weight_type=QuantType.QInt8, extra_options=known)
        prepared.unlink()
    else:
        exported.rename(path)


def open_onnxruntime(sources: Sources, folder: Path, threads: int) -> Opened:  # noqa: ARG001
    """A session with its defaults, but for the number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return Opened(lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


def make_openvino(sources: Sources, folder: Path, *, quantised: bool) -> None:
    """OpenVINO's conversion of the PyTorch model; NNCF's static int8 with its preset for transformers."""
    import openvino
    import torch

    model = openvino.convert_model(_torch_model(sources), example_input=_example(torch))
    for given, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        given.get_tensor().set_names({name})
    if quantised:
        model = _quantised(model, sources)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def make_openvino_exits(sources: Sources, folder: Path) -> None:
    """All exits in static int8, cut into stages and nested in one graph; with PipeOps' threshold.

    Raises:
        PipeOpsError: PipeOps' model with early exits was not made before.
    """
    import openvino
    import torch

    policy = folder.parent / "pipeops-exits" / POLICY
    if not policy.exists():
        raise PipeOpsError("its threshold is that of PipeOps int8; name 'PipeOps int8' among --engines")
    ours = json.loads(policy.read_text())["int8"]
    split, layers = load_tokenised(sources.validation), ModelShape.from_checkpoint(sources.exits).num_layers
    model = openvino.convert_model(_torch_exits(sources), example_input=_example(torch))
    openvino_stages.name_tensors(model, layers)
    # The fast correction of biases costs the first exit 0.7 points on SST-2.
    model = _quantised(model, sources, fast_bias_correction=False)
    openvino.save_model(openvino_stages.nested(model, layers), folder / "model.xml", compress_to_fp16=False)
    for layer in range(1, layers + 1):
        stage = openvino_stages.stage(model, layer, layers)
        openvino.save_model(stage, folder / f"stage-{layer}.xml", compress_to_fp16=False)
    ask = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answered = [list(ask([ids[None], np.ones_like(ids[None])]).values())[:layers] for ids in split.input_ids]
    chosen = with_threshold(
        np.array(answered)[:, :, 0], split.label_ids, ours["threshold"], layers=tuple(range(1, layers + 1))
    )
    write_json(folder / POLICY, {"OpenVINO int8": chosen})


def _quantised(model, sources: Sources, **settings):
    """NNCF's static int8 with its preset for transformers."""
    import nncf

    rows = [
        {"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}
        for ids in calibration_rows(sources)
    ]
    return nncf.quantize(
        model,
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
        **settings,
    )


def calibration_rows(sources: Sources) -> list[NDArray[np.int64]]:
    """Training rows for static scales: the first ones of the file, which are in no order.

    Raises:
        PipeOpsError: too few, or all of one class.
    """
    split = load_tokenised(sources.training)
    classes = len(np.unique(split.label_ids[:CALIBRATION]))
    if len(split) < FEWEST or classes < 2:
        raise PipeOpsError(
            f"{sources.training}: {len(split)} rows of {classes} classes; static scales need {FEWEST} rows "
            "and 2 classes at least"
        )
    return split.input_ids[:CALIBRATION]


def open_openvino(sources: Sources, folder: Path, threads: int, *, precision: str) -> Opened:  # noqa: ARG001
    """One stream on so many threads; ``precision`` is what is computed in float."""
    import openvino

    model = openvino.Core().compile_model(folder / "model.xml", "CPU", _settings(threads, precision))
    request = model.create_infer_request()
    return Opened(lambda ids, mask: request.infer([ids, mask], share_inputs=True)[0])


def open_openvino_exits(
    sources: Sources, folder: Path, threads: int, *, staged: bool, policy: bool
) -> Opened:
    """Early exits on OpenVINO, decided within its graph or between stages."""
    import openvino

    core, settings = openvino.Core(), _settings(threads, "f32")
    layers = ModelShape.from_checkpoint(sources.exits).exit_layers
    if staged:
        paths = [folder / f"stage-{layer}.xml" for layer in layers]
        run = openvino_stages.Stages(core, paths, settings).run
    else:
        request = core.compile_model(folder / "model.xml", "CPU", settings).create_infer_request()

        def run(ids, mask, thresholds):
            return request.infer([ids, mask, thresholds], share_inputs=True)[0]

    return _leaving(run, layers, folder, "OpenVINO int8" if policy else None)


def _settings(threads: int, precision: str) -> dict[str, str | int]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }


def make_ctranslate2(sources: Sources, folder: Path) -> None:
    """The encoder in transformers' form, converted by CTranslate2; the head beside it."""
    import ctranslate2
    import transformers
    from safetensors.numpy import load_file

    from pipeops.models.backbones import load_tokenizer

    shape, family = sources.shape, sources.shape.declared
    model = _torch_model(sources).model.backbone
    config = type(model.config).from_dict(model.config.to_dict() | {"position_embedding_type": "absolute"})
    # Its converter wants a pooler, which no answer here depends on.
    with_pooler = getattr(transformers, f"{family.runs_as}Model")(config)
    with_pooler.load_state_dict(model.state_dict(), strict=False)
    with_pooler.save_pretrained(folder / "transformers")
    load_tokenizer(sources.single).save_pretrained(folder / "transformers")
    converter = ctranslate2.converters.TransformersConverter(str(folder / "transformers"))
    converter.convert(str(folder / "ctranslate2"), quantization="int8")
    weights = load_file(sources.single / WEIGHTS)
    prefix = f"exits.{shape.num_layers}."
    np.savez(
        folder / "head.npz",
        **{name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)},
    )


def open_ctranslate2(sources: Sources, folder: Path, threads: int) -> Opened:
    """Hidden states by CTranslate2; pooling and the head by numpy."""
    import ctranslate2

    if sources.shape.declared.head.activation != "tanh":
        raise PipeOpsError(f"CTranslate2: the head of {sources.shape.family} is not computed here")
    encoder = ctranslate2.Encoder(
        str(folder / "ctranslate2"), device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1
    )
    head, mean = dict(np.load(folder / "head.npz")), sources.shape.pooling == "mean"

    def ask(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        given, lengths = (
            ctranslate2.StorageView.from_array(np.ascontiguousarray(values, dtype=np.int32))
            for values in (ids, mask.sum(axis=1))
        )
        states = np.array(encoder.forward_batch(given, lengths).last_hidden_state)
        kept = mask[..., None].astype(np.float32)
        pooled = (states * kept).sum(axis=1) / kept.sum(axis=1) if mean else states[:, 0]
        active = np.tanh(pooled @ head["dense.weight"].T + head["dense.bias"])
        return active @ head["out_proj.weight"].T + head["out_proj.bias"]

    return Opened(ask)


def open_torch(
    sources: Sources,
    folder: Path,  # noqa: ARG001
    threads: int,
    *,
    dtype: str = "float32",
    compiled: bool = False,
) -> Opened:
    """PyTorch itself, compiled for any batch and length if asked."""
    import torch

    torch.set_num_threads(threads)
    model = _torch_model(sources).to(getattr(torch, dtype))
    if compiled:
        model = torch.compile(model, dynamic=True)

    def ask(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return model(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()

    return Opened(ask)


def _torch_model(sources: Sources, *, attention: str = "sdpa"):
    """The model with one exit, from ids and mask to logits."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(
                sources.single, attn_implementation=attention
            )

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids, attention_mask).logits

    return Logits().eval()


def _torch_exits(sources: Sources):
    """The model with all exits: logits of exit after exit, then the states after all layers but the last."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Exits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(sources.exits)

        def forward(self, input_ids, attention_mask):
            found = self.model(input_ids, attention_mask)
            return *found.exit_logits, *found.hidden_states[1:-1]

    return Exits().eval()


def _example(torch) -> tuple:
    """Two inputs, one of them padded, so that no export takes a mask of ones for granted."""
    ids, mask = torch.full((2, 16), 5), torch.ones((2, 16), dtype=torch.long)
    mask[1, 8:] = 0
    return ids, mask


def _answers(folder: Path, split: TokenisedSplit, *, quantised: bool) -> NDArray[np.float32]:
    profiler = Profiler.load(graph_path(folder, "profile", quantised=quantised), threads=1)
    return answers(profiler, split, what="choose a policy")


def _accuracy(logits: NDArray[np.float32], split: TokenisedSplit) -> float:
    return float((logits.argmax(axis=-1) == split.label_ids).mean())


def _precision(quantised: bool) -> str:
    return "int8" if quantised else "fp32"


def _ours() -> dict[str, Engine]:
    found = {}
    for quantised in (False, True):
        name, file = f"PipeOps {_precision(quantised)}", f"model{'-int8' if quantised else ''}.onnx"
        found[name] = Engine(
            made="pipeops",
            make=partial(make_ours, exits=False),
            open=partial(open_ours, quantised=quantised),
            files=file,
        )
        for policy, what in ((False, "all exits"), (True, "by policy")):
            found[f"{name}, {what}"] = Engine(
                made="pipeops-exits",
                make=partial(make_ours, exits=True),
                open=partial(open_exits, quantised=quantised, policy=policy),
                files=file,
            )
    return found


def _of_onnxruntime() -> dict[str, Engine]:
    ways = {"fp32": {"quantised": False}, "int8": {"quantised": True}}
    ways["int8, fused"] = {"quantised": True, "fused": True}
    return {
        f"ONNX Runtime {name}": Engine(
            made=f"onnxruntime-{name.replace(', ', '-')}",
            make=partial(make_onnxruntime, **way),
            open=open_onnxruntime,
            modules=("torch",),
            files="model.onnx",
        )
        for name, way in ways.items()
    }


def _of_openvino() -> dict[str, Engine]:
    ways = {"fp32": (False, "f32"), "bf16": (False, "bf16")}
    ways |= {"int8, rest fp32": (True, "f32"), "int8, rest bf16": (True, "bf16")}
    found = {
        f"OpenVINO {name}": Engine(
            made=f"openvino-{_precision(quantised)}",
            make=partial(make_openvino, quantised=quantised),
            open=partial(open_openvino, precision=precision),
            modules=("torch", "openvino", *(("nncf",) if quantised else ())),
            library="openvino",
            files="model.*",
        )
        for name, (quantised, precision) in ways.items()
    }
    for staged, prefix in ((False, "OpenVINO int8"), (True, "OpenVINO int8 in stages")):
        for policy, what in ((False, "all exits"), (True, "by policy")):
            found[f"{prefix}, {what}"] = Engine(
                made="openvino-exits",
                make=make_openvino_exits,
                open=partial(open_openvino_exits, staged=staged, policy=policy),
                modules=("torch", "openvino", "nncf"),
                library="openvino",
                batches=False,
                files="stage-*" if staged else "model.*",
            )
    return found


def _of_torch() -> dict[str, Engine]:
    ways = {
        "fp32": {},
        "bf16": {"dtype": "bfloat16"},
        "bf16, compiled": {"dtype": "bfloat16", "compiled": True},
    }
    return {
        f"PyTorch {name}": Engine(
            made="torch",
            make=make_nothing,
            open=partial(open_torch, **way),
            modules=("torch",),
            library="torch",
        )
        for name, way in ways.items()
    }


ENGINES: Mapping[str, Engine] = {
    **_ours(),
    **_of_onnxruntime(),
    **_of_openvino(),
    "CTranslate2 int8": Engine(
        made="ctranslate2",
        make=make_ctranslate2,
        open=open_ctranslate2,
        modules=("torch", "ctranslate2"),
        library="ctranslate2",
        files="ctranslate2/*",
    ),
    **_of_torch(),
}

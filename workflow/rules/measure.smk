"""Export to ONNX and measure on the CPU."""


rule export:
    input:
        multiext("<results>/models/{dataset}/{pipeline}/seed{seed}/", *jobs.MODEL),
    output:
        unless_kept(
            multiext("<results>/onnx/{dataset}/{pipeline}/seed{seed}/", *jobs.EXPORTED)
        ),
    log:
        "<logs>/onnx/{dataset}/{pipeline}/seed{seed}.log",
    benchmark:
        "<logs>/onnx/{dataset}/{pipeline}/seed{seed}.tsv"
    # What is not kept is measured at once: an export then takes the whole machine too, so that its measurement,
    # which goes first, need not wait for the other exports.
    priority: 5 if study.keep_checkpoints else 0
    threads: 1 if study.keep_checkpoints else all_cores
    resources:
        mem_mb=inference_memory,
        runtime=lambda wildcards, attempt: 10 * attempt,
        export_slots=1,
    params:
        model=subpath(input[0], parent=True),
        folder=subpath(output[0], parent=True),
        options=lambda wildcards: jobs.export(study, pipeline_of(wildcards.pipeline)),
        revision=revisions.EXPORT,
    message:
        "export {wildcards.pipeline}, {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        "pipeops export {params.model:q} --output {params.folder:q} {params.options:q} > {log:q} 2>&1"


rule measure:
    input:
        model=multiext(
            "<results>/onnx/{dataset}/{pipeline}/seed{seed}/", *jobs.EXPORTED
        ),
        original="<results>/onnx/{dataset}/O/seed{seed}/model.onnx",
        data="<results>/data/{dataset}/validation.parquet",
    output:
        csv="<results>/curves/{dataset}/{pipeline}/seed{seed}.csv",
        exits="<results>/curves/{dataset}/{pipeline}/seed{seed}.exits.csv",
        details="<results>/curves/{dataset}/{pipeline}/seed{seed}.json",
    log:
        "<logs>/curves/{dataset}/{pipeline}/seed{seed}.log",
    benchmark:
        "<logs>/curves/{dataset}/{pipeline}/seed{seed}.tsv"
    priority: 1
    # All of them: nothing else may run while time is measured. How many are measured is a setting.
    threads: all_cores
    resources:
        mem_mb=inference_memory,
        runtime=measuring_minutes,
    params:
        settings=study.measuring.model_dump_json(),
        model=input_folder("model"),
        original=input_folder("original"),
        revision=revisions.MEASURE,
    message:
        "measure {wildcards.pipeline}, {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        "pipeops measure {params.model:q} --original {params.original:q} --data {input.data:q}"
        " --output {output.csv:q} --seed {wildcards.seed} --settings {params.settings:q} > {log:q} 2>&1"

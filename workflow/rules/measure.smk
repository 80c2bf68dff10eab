"""What exits answer (beside trainings), what leaving at them costs (machine to itself), and the curves of both."""


rule export:
    input:
        multiext("<results>/models/{dataset}/{pipeline}/seed{seed}/", *jobs.MODEL),
    output:
        unless_kept(
            multiext("<results>/onnx/{dataset}/{pipeline}/seed{seed}/", *EXPORT)
        ),
    log:
        "<logs>/onnx/{dataset}/{pipeline}/seed{seed}.log",
    benchmark:
        "<logs>/onnx/{dataset}/{pipeline}/seed{seed}.tsv"
    # What is not kept goes through before more trainings start.
    priority: 5 if study.keep_checkpoints else 20
    resources:
        mem_mb=inference_memory,
        runtime=lambda wildcards, attempt: 10 * attempt,
        export_slots=1,
    params:
        model=subpath(input[0], parent=True),
        folder=subpath(output[0], parent=True),
        revision=revisions.EXPORT,
    message:
        "export {wildcards.pipeline}, {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        "pipeops export {params.model:q} --output {params.folder:q} > {log:q} 2>&1"


rule evaluate:
    input:
        model=multiext(
            "<results>/onnx/{dataset}/{pipeline}/seed{seed}/", *jobs.EXPORTED
        ),
        data=prepared("data/{dataset}/validation.parquet"),
    output:
        "<results>/answers/{dataset}/{pipeline}/seed{seed}.parquet",
    log:
        "<logs>/answers/{dataset}/{pipeline}/seed{seed}.log",
    benchmark:
        "<logs>/answers/{dataset}/{pipeline}/seed{seed}.tsv"
    priority: 5 if study.keep_checkpoints else 30
    resources:
        mem_mb=inference_memory,
        runtime=evaluating_minutes,
    params:
        model=input_folder("model"),
        revision=revisions.EVALUATE,
    message:
        "evaluate {wildcards.pipeline}, {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        "pipeops evaluate {params.model:q} --data {input.data:q} --output {output:q} --dataset {wildcards.dataset:q}"
        " --pipeline {wildcards.pipeline:q} --seed {wildcards.seed} > {log:q} 2>&1"


rule price:
    input:
        unpack(price_inputs),
    output:
        csv="<results>/prices/{dataset}/{operators}.csv",
        details="<results>/prices/{dataset}/{operators}.json",
    log:
        "<logs>/prices/{dataset}/{operators}.log",
    benchmark:
        "<logs>/prices/{dataset}/{operators}.tsv"
    # First of all, as nothing need be trained for it; and alone, as it measures time.
    priority: 40
    threads: all_cores
    resources:
        mem_mb=inference_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        arguments=lambda wildcards: jobs.price(study, wildcards.operators),
        inputs=price_input_options,
        waiting=waiting_options,
        revision=revisions.PRICE,
    message:
        "price {wildcards.operators}, {wildcards.dataset}"
    shell:
        "pipeops price {params.arguments:q} {params.waiting:q} {params.inputs:q} --output {output.csv:q} > {log:q} 2>&1"


rule curves:
    """Answers joined with prices, seed by seed, and all seeds in one table: the one input of every analysis."""
    input:
        answers=expand(
            f"{MEASURED}/answers/{{{{dataset}}}}/{{{{pipeline}}}}/seed{{seed}}.parquet",
            seed=study.seeds,
        ),
        prices=price_of,
        details=price_details_of,
    output:
        # The curves of single seeds are written beside. Declared here, a new seed would leave the job without the
        # record that says that its inputs changed.
        csv="<results>/curves/{dataset}/{pipeline}.csv",
        exits="<results>/curves/{dataset}/{pipeline}.exits.csv",
        details="<results>/curves/{dataset}/{pipeline}.json",
    log:
        "<logs>/curves/{dataset}/{pipeline}.log",
    localrule: True
    params:
        seeds=study.seeds,
        rule_of_exits=jobs.rule_of_exits(study),
        metric=lambda wildcards: study.metric(wildcards.dataset),
        allow_other_cpu=study.any_cpu,
        revision=revisions.CURVES,
    message:
        "curves of {wildcards.pipeline}, {wildcards.dataset}"
    script:
        "../scripts/curves.py"


rule check:
    input:
        model=expand(
            "<results>/onnx/{{dataset}}/{{pipeline}}/seed{seed}/{file}",
            seed=study.seeds[0],
            file=jobs.EXPORTED,
        ),
        original=expand(
            "<results>/onnx/{{dataset}}/O/seed{seed}/model.onnx",
            seed=study.seeds[0],
        ),
        data=prepared("data/{dataset}/validation.parquet"),
        answers=expand(
            "<results>/answers/{{dataset}}/{{pipeline}}/seed{seed}.parquet",
            seed=study.seeds[0],
        ),
        prices=price_of,
        details=price_details_of,
    output:
        csv="<results>/checks/{dataset}/{pipeline}.csv",
        details="<results>/checks/{dataset}/{pipeline}.json",
    log:
        "<logs>/checks/{dataset}/{pipeline}.log",
    threads: all_cores
    resources:
        mem_mb=inference_memory,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        model=input_folder("model"),
        original=input_folder("original"),
        settings=jobs.check(study),
        waiting=waiting_options,
        revision=revisions.CHECK,
    message:
        "check {wildcards.pipeline}, {wildcards.dataset}"
    shell:
        "pipeops check {params.model:q} --original {params.original:q} --data {input.data:q} --answers {input.answers:q}"
        " --prices {input.prices:q} --output {output.csv:q} {params.settings:q}"
        " {params.waiting:q} > {log:q} 2>&1"

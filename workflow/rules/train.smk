"""The one rule that trains: a node of the DAG is an operator applied to its parent's checkpoint."""


rule train:
    input:
        unpack(training_inputs),
        data=prepared("data/{dataset}/train.parquet"),
        backbone=prepared_backbone,
    output:
        unless_kept(
            multiext("<results>/models/{dataset}/{pipeline}/seed{seed}/", *CHECKPOINT)
        ),
    log:
        "<logs>/models/{dataset}/{pipeline}/seed{seed}.log",
    benchmark:
        "<logs>/models/{dataset}/{pipeline}/seed{seed}.tsv"
    # After prices, which need the machine to themselves, and before evaluations, which can run beside.
    priority: 10
    threads: lambda wildcards: training_of(wildcards.pipeline).threads
    resources:
        mem_mb=training_memory,
        runtime=training_minutes,
    params:
        arguments=lambda wildcards: train_arguments(wildcards.pipeline),
        inputs=training_input_options,
        hardware=training_hardware_options,
        backbone=input_folder("backbone"),
        folder=subpath(output[0], parent=True),
        revision=lambda wildcards: operator_of(wildcards).revision,
    message:
        "train {wildcards.pipeline}, {wildcards.dataset}, seed {wildcards.seed}"
    shell:
        "pipeops train {params.arguments:q} --data {input.data:q} --backbone {params.backbone:q}"
        " --output {params.folder:q} --seed {wildcards.seed} {params.inputs:q} {params.hardware:q} > {log:q} 2>&1"

"""Stage 2: train small students from a cache of the teacher's embeddings, with no teacher in memory.

From the ground up, each importing what is before it; each room names its files::

    config_fields, config_checks    fields that know their values, and what does not go together
    config, settings          the whole of a run as one frozen value; TOML, and settings by name
    losses, objective         pure terms, and the one place that adds them up
    metrics, tip_adapter, spread    pure functions of logits, embeddings, a few numbers
    headline                  which splits and which number a run is judged by first
    precision, data_identity, checkpoint    what is computed in; what a run is made of; its state in a file
    record                    what a run leaves behind
    data                      images and frames joined to rows
    student                   trunk, heads, prompts
    robotics                  what only episodes have
    judge                     the one evaluator
    train                     the loop, and a step
    fewshot, sweep, report    a few images of new classes; many runs; one page of them
    deploy                    a student that leaves: export, predict, serve
    demo, recipes, doctor     the embedded example; settings that ship; a machine examined
    commands                  one a file
"""

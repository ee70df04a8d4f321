"""The commands: each parses, calls one function, prints. They know no group.

Every import of torch, h5py and the like stands inside a command: its --help does not wait for them.

Its files::

    demo, doctor              both stages on a small example; what this machine has
    adapt                     both on one's own photos, with all that follows
    prepare                   data before stage 1: split, describe, caption
    cache_features, cache     stage 1; what is done with caches
    cache_info, cache_texts   what is in one; more texts in a finished one
    recipes, train, evaluate, fewshot    settings that ship; stage 2
    train_plan                what train --plan prints
    evaluate_on               evaluate on images of any source
    sweep, report             many runs; report compares two as well
    export, predict           a student that leaves: export, texts, bench-model; predict, serve
    embed                     unit rows of any source
    robotics, episodes        stage 1 for episodes; options that only they have
    options, tables           what several commands take, and print
    meant                     the option that another word means
    source_options            how images are read
    memory                    what each can do with less memory
"""

"""Makes data before stage 1: imports runtime and sources alone.

Its files::

    split, split_list         images -> train, ID test and OOD test, as a list
    published_splits          the six data sets of the paper
    describe, answers         a description of every class, asked of a language model
    caption, captioner        a caption of every image, by a model of transformers
    finished_lines            what a long run has finished so far
"""

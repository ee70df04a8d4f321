"""The teacher, and the only importers of open_clip.

Its files::

    weights, config_checks    from a name to a file of weights; what a config from elsewhere may ask for
    weight_files              such a file -> tensors, and nothing else that it may hold
    open_clip_model           the teacher: images and texts -> embeddings
    any_shape                 what it does to pictures, thin ones too
    short_texts               causal text towers skip what follows the end
    tokenizers                what texts are cut into tokens by, and the digest that names it
    text_network              a teacher's text tower alone
    text_tower                the tower that a cache keeps, for prompt learning
    sanity                    numbers that a teacher cannot have meant
"""

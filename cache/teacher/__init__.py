"""The teacher, and the only importers of open_clip.

Its files::

    weights, config_checks    from a name to checked tensors; what a config from elsewhere may ask for
    open_clip_model           the teacher: images and texts -> embeddings
    short_texts               causal text towers skip what follows the end
    text_tower                the tower that a cache keeps, for prompt learning
    sanity                    numbers that a teacher cannot have meant
"""

"""The teacher, and the only importers of open_clip.

Its files::

    load                      a teacher by its name: the adapter of the library that it is of
    kinds                     how teachers are named, and what a mistyped name meant
    teacher, text_side        the teacher: images and texts -> embeddings; what an adapter brings for each
    open_clip_teacher         open_clip's models, and
    open_clip_texts           what reads their texts, also alone, as a cache keeps it
    transformers_teacher      transformers' CLIP and SigLIP, by
    transformers_config       their config.json, which asks for no code and no more than its weights hold, and
    transformers_pictures     their preprocessor_config.json;
    transformers_texts        what reads their texts, also alone, by
    folder_tokenizer          a tokenizer of transformers from files
    timm_teacher, timm_weights   timm's models, of images alone; their weights and config
    own_teacher               what a Python file makes that the command names
    weights, config_checks    open_clip's: from a name to a file of weights; what a config may ask for
    fetched                   what open_clip fetches without a word, fetched first
    weight_files              such a file into a network of open_clip's
    state_files               any file of weights -> tensors, and nothing else that it may hold
    model_files               the files of a folder or repository, and whose config lies there
    any_shape                 what it does to pictures, thin ones too
    eight_bit                 the same in two halves: pixels, and the numbers that a GPU makes of them
    image_towers              in which numbers and layout they compute; their patches
    tokenizers                what texts are cut into tokens by, and the digest that names it
    text_tower                the tower that a cache keeps, for prompt learning
    templates                 sets of templates that open_clip has, by name
    sanity                    numbers that a teacher cannot have meant
"""

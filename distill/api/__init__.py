"""What ``import distill`` offers: the functions that the commands call, with plain arguments.

They are quiet unless ``progress=True``, leave signal handlers, random numbers and torch's settings as they
were, and may be called in a notebook. Its files::

    given                     places, progress and settings as Python has them
    kinds                     what an argument can be: what its annotation names
    words                     what an error calls an argument
    traces                    what a call leaves behind: nothing
    features                  cache_features
    training                  train_student
    judging                   evaluate
    exporting                 export
    model                     load_model: predict and embed
    images                    paths, PIL images, arrays and tensors as what a model takes
    adapting                  adapt_photos
"""

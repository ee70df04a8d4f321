"""What is shipped: a folder with a student, class texts and a model card, and all that runs it without torch.

``export`` (the only part that needs torch and the run) makes the folder: ``onnx_files`` writes the graphs,
``check`` compares each with the student, ``card`` writes the README. ``info`` is its ``model.json``,
``class_sets`` its texts, ``model`` its embeddings; ``predict``, ``serve`` and ``bench`` use them.
"""

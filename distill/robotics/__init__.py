"""The robotics variant: multi-label, RGB-D, two cameras; on the same cache, losses and loop as photos.

Episodes (:mod:`cache.sources.episodes`) -> the teacher's embeddings of both cameras in a cache -> frames of
eight channels -> a student with a global embedding, and one for every location where asked -> a score for
every object, from a positive and a negative text -> the asymmetric loss, L-mse and L-im-cst.

    config        the settings that only robotics has
    frames        an episode as eight channels; flip and normalise
    student       a backbone of eight channels, two heads and a score bias
    texts         a positive and a negative text an object: fixed, or learnt (dual CoOp)
    scores        embeddings and texts -> scores in 0..1
    objective     scores and embeddings -> losses
    metrics       accuracy, precision, recall, average precision, by counts
    session       everything a run needs
    train         the task that the loop trains
    evaluate, fewshot    what the commands of those names call
    scenes        draws the demo's episodes
"""

"""What only robotics has: several objects in a scene, RGB and depth, any number of cameras.

Episodes (:mod:`cache.sources.episodes`) -> the teacher's embeddings of every camera in a cache -> frames of
all their channels -> a student with a global embedding, and one for every location where asked -> a score for
every object, from a positive and a negative text -> the asymmetric loss, L-mse and L-im-cst.

Its files::

    student                   a backbone of as many channels, two heads and a score bias
    texts                     a positive and a negative text an object: fixed, or learnt (dual CoOp)
    scores, objective         embeddings and texts -> scores in 0..1; scores and embeddings -> losses
    metrics                   accuracy, precision, recall, average precision, by counts
    model                     a student of episodes: its losses, its answers
"""

"""What only episodes have: several labels each, RGB and depth of two cameras; all else is as of photos.

Episodes (:mod:`cache.sources.episodes`) -> the teacher's embeddings of both cameras in a cache -> frames of
eight channels (:mod:`distill.data.frames`) -> a student with a global embedding, and one for every location
where asked -> a score for every object, from a positive and a negative text -> the asymmetric loss, L-mse and
L-im-cst.

    student       a backbone of eight channels, two heads and a score bias
    texts         a positive and a negative text an object: fixed, or learnt (dual CoOp)
    scores        embeddings and texts -> scores in 0..1
    objective     scores and embeddings -> losses
    metrics       accuracy, precision, recall, average precision, by counts
    model         all of that as training and evaluation ask for it
"""

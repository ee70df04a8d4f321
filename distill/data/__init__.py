"""Batches for a student: images and frames joined to the rows of a cache.

Its files::

    folders, stream           the images of a run and the splits it is judged on
    streams, tar_stream       which of both kinds of stream: of a data folder, or of a cache's own tars
    tar_epoch, tar_rows, tar_identities    the order of an epoch of tars, its rows, what they are
    id_val, class_val         training images and whole classes set aside to choose on
    pool_val                  images of a pool alone set aside; the teacher says what they are
    pool, tar_pool            images without a label: their share of a batch; none is a test image
    training_rows, joined_rows    images joined to rows by key; the rows of several splits as one
    epoch_order               which images each batch of an epoch has
    training_data, batch      batches with the teachers' rows; what crosses to a step
    pixels, pixel_sources     decoded images, kept where they fit
    augment, frames           per-image augmentation of whole batches; the cameras of an episode as channels
    normalisation             the mean and deviation that a student's pixels are normalised with
    crop_views, replayed_views    the views that the cache keeps, replayed; which ones a run replays
    teacher_texts             which texts the teachers have; what is left out or refused without
    support                   few labelled images, and what is left to test on
    identity_reader           what a run is made from
"""

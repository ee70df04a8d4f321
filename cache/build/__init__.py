"""Sources and a teacher -> a cache.

Its files::

    from_folder, from_episodes    what cache-features and robotics cache-features call
    first_look                what can be wrong with data and folders, said before torch is imported
    options, versions         what stage 1 can be told, and the run that is made of it
    pipeline                  the run: prepare, embed, add columns, finish; kill it anywhere and run it again
    rebuild                   a cache of another make, made beside the one that is there
    preparation               what changed since the last run, and what is to do
    split_listing, stored_rows, split_changes, touched_files    a source beside its rows, as arrays
    changes                   what changed, in one line
    chunk_identities, lost_files    what need not be listed; what a kill left behind
    outdated_tars             tars with the class numbers and captions of before
    plan, unit_samples        what is to be embedded, in units that any writer can take, in the same batches
    embed_units, embed_images, group_writer    units -> the teacher's rows -> row groups, in one process
    ray_executor, ray_columns    who does it instead of this process, or torchrun's: a Ray cluster
    columns, added_columns    something per image, added to the row groups that lack it by one loop
    captions, crop_views, support_views, embed_views, pixels, neighbours    columns
    projection                what rows of views are projected by, fitted
    second_teacher, teacher_rows    another teacher's rows and texts of the same images
    text_banks, distinct_texts    texts embedded; texts that tell classes apart
    without_texts             what of texts is not asked of a teacher of images alone
    text_options, add_texts, class_means    cache add-texts: texts embedded, or means of labelled images
    summary, judgements, zero_shot, near_duplicates    what was done, and what should be looked at
"""

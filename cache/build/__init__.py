"""Sources and a teacher -> a cache.

Its files::

    from_folder, from_episodes    what cache-features and robotics cache-features call
    options                   what stage 1 can be told, and the run that is made of it
    pipeline                  the run: prepare, embed, finish; kill it anywhere and run it again
    ray_executor              who embeds instead of this process, or torchrun's: a Ray cluster
    resume                    what is left to do
    embed_images              pictures -> the teacher's rows, decoding beside it
    shard_writer              rows -> files and their lines in the manifest
    text_banks, distinct_texts    texts embedded; texts that tell classes apart
    add_texts                 what cache add-texts calls
    captions, crop_views, support_views, pixels    what is added to rows when asked for
    summary, zero_shot        what was done, and what should be looked at
"""

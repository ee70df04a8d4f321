"""What lies on the disk. No torch.

Its files::

    spec                      what makes two caches the same
    manifest, manifest_lines  what is complete, line by line, read with suspicion
    shard_formats, hdf5_shards, webdataset  rows of images in two formats behind one interface
    shard_rows, image_files   the rows of a shard, and the files that they were made from
    hdf5_columns, mapped_arrays, npz_files  columns with checksums, mapped; arrays from elsewhere
    column_shards, pixels, crop_views, support_views    what is kept of images beside their rows
    text_banks                texts, classes and their embeddings
    neighbours                the nearest class texts; the only importer of faiss
    rank_manifests            what each of several processes has finished
    duplicates                one image under two keys
    checksums, read_errors    flipped bits, and what is said of them
"""

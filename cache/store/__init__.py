"""What lies on the disk. No torch.

Its files::

    spec                      what makes two caches the same
    manifest, manifest_lines  what a cache is, read with suspicion; its size does not grow with its rows
    listed_cache              what both say of a finished cache, to one of its teachers
    journal, journal_lines    which files are finished, line by line, of every writer
    row_group                 rows that were written together, and what they are of
    digests                   what names rows, however they are grouped
    hdf5_columns, mapped_arrays, npz_files  columns, mapped; arrays from elsewhere
    key_index, split_rows     the rows of a split, found by key
    webdataset, tar_rows      the other format: tars of pictures and rows, written and streamed
    cached_source             rows as a source, of whoever has them
    tar_folder                what is in them as the data that they were made of
    kept_rows                 rows as data, where pixels are kept and their files are gone
    column_lines              what a column was made from: one that is stale is never read
    projections               rows as a few bytes each
    pixels, crop_views, support_views, stored_neighbours    columns of images, views and nearest texts
    neighbours                which texts are nearest; the only importer of faiss
    text_banks                texts, classes and their embeddings
    duplicates                one image under two keys
    left_out                  what of the data has no row, by reason
    checksums, read_errors    flipped bits, and what is said of them
"""

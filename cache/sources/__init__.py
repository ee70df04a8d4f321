"""What is embedded: photos and episodes, their splits, their classes and the texts of these.

Its files::

    samples                   samples, which have pictures, a key and classes' names; sources and their chunks
    data, source_options      the one door: what the user names -> the source of each split; how it is read
    kept_sources              sources as a cache keeps them, to open them again
    split_rules               splits that a rule makes of labelled images
    joined_sources            several sources as one split
    accounts                  what a source leaves out, by reason
    key_hashes, key_chunks    hashes of keys, and chunks cut by them
    image_folder              photos in folders
    folder_walk, folder_listing  what lies below a folder; the names of its photos, as arrays
    listed_chunks             sources whose chunks are listed whole
    chunk_looks               each of them once, in one thread or several
    tars, tar_members         tars as webdataset writes them; the headers of a tar
    records, list_columns     what a list or table says of its pictures, line by line, in which columns
    list_lines, file_list     lists of pictures: .csv, .tsv and .jsonl
    table_source, parquet     tables of pictures in parquet files, through arrow_files, the door to pyarrow
    dataset_source            torch datasets of (picture, label)
    saved_dataset             folders that Hugging Face datasets has saved
    class_numbers             classes that are given as numbers
    remote_folder             photos in folders on a server
    pictures, places          pictures that lie somewhere: a file, a part of one, here or on a server
    remote_files              files on servers
    picture_formats           which files are pictures, by how they begin
    decoding, grey_depth      how a picture is decoded; grey of more than 8 bits
    decoders                  what decodes a student's photos: one a run
    resizing                  pictures of any shape -> few pixels
    synthetic                 pictures of no file, for benchmarks and tests
    episodes                  a robot's episodes in HDF5
    episode_files             what lies in such a file, looked at before it is read
    episode_keys              what such files call their parts
    episode_texts             a positive and a negative text for every object
    splits, names, open_set   names of splits; names that lead nowhere; which side of the line a class is on
    id_names                  class folders that are called by ids
    split_folders             which folders are splits, by what they are called
    class_texts               class folders -> names -> texts; descriptions; captions
    class_sentences           several sentences a class, as CuPL writes them
    crop_boxes, rand_augment  where random crops lie; what is done to the whole picture before
    arrays, clip_retrieval    embeddings made elsewhere
"""

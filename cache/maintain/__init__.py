"""What is done with caches that are there.

Its files::

    verify, repair            what is damaged; out with it
    convert                   the other format, number for number
    import_files, import_embeddings    a cache of embeddings made elsewhere
"""

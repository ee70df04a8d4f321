"""What is done with caches that are there.

Its files::

    info                      what is in one, by its manifest and journal
    verify, listed_files, column_files    what is damaged, file by file, and what nobody lists
    repair, redo_commands     out with it; the command that makes it again
    compact                   small row groups joined, removed rows dropped
    convert, converted_rows   the other format, number for number; run again it follows its source
    copied_groups, joined_columns, group_columns    rows of row groups as another: for these two
    import_files, import_embeddings, imported       rows and texts embedded elsewhere, as one value
    imported_keys, imported_rows, imported_banks, imported_texts    their images, row groups and texts
"""

"""From a folder of photos and a list of names to a model, in one command. Read run.py: the stages of work.

Its files::

    run                       the stages, each of which goes on where it was stopped
    first_look                what was given, looked at before torch is imported
    book                      what is asked for, what is done, how much time is left
    options, state            what is asked for; what was done, and with which options
    names                     the list of names
    labels, photos            what is said of each photo; which are learnt from, and which judge
    duplicates                photos that are there twice
    photo_list                photos and names as files that a cache is made from
    teacher                   the cache: every photo, embedded once
    students                  those that are trained, one after the other, and their settings
    shipping                  a student in the model's place
    score                     how good a run is by what was set aside
    words                     the words that a model names without being given any
    costs                     time and disk, before it begins; epochs and image size that fit a budget
    outcome                   what came of it, in numbers and in words
"""

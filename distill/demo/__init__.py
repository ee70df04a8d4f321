"""The embedded default: a small data set drawn by our own code, and a small CLIP that knows it.

Its files::

    shapes, words             what is drawn, and how it is called
    others                    other shapes, colours and patterns, of which the trunk that ships was made
    scenes, unlabelled        photos of one shape: with labels, and without
    episodes                  episodes of several shapes, seen by two cameras
    run                       what distill demo calls
"""

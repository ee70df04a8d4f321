"""The embedded default: a small data set drawn by our own code, and a small CLIP that knows it.

Its files::

    shapes, words             what is drawn, and how it is called
    scenes, episodes          photos of one shape; episodes of several, seen by two cameras
    run                       what distill demo calls
"""

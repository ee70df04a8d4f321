"""Many runs from one recipe.

Its files::

    plan                      a sweep file -> runs
    run, ray, together        what is left to do, in processes, on Ray, or beside each other
    watch                     a live table, or lines
"""

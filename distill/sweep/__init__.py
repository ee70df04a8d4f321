"""Many runs from one recipe.

    plan                      a sweep file -> runs
    run, ray, together        what is left to do, in processes, on Ray, or beside each other
    watch                     a live table, or lines
"""

"""``scripts/gpu_check.py``: what a machine with a GPU reaches, in minutes.

wheels      which packages it needs, which are missing, and their installation from a folder
children    each part in a process of its own, with a time limit
parts       what the parts are called, how long each may take, and what runs them
work        what each part is given, and what parts share
tests, teacher, training, device, several    the parts
machine     the card, its driver and the versions
report      JSON, and the table that BENCHMARKS.md has
"""

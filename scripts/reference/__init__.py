"""The documentation's reference, made from the code whenever the site is built.

commands    every command and option, as click has them
settings    every field of a run's config: default, what it takes, its meaning
recipes     the recipes and sweeps that ship, printed
files       what lies in a cache and in a run's folder
notebooks   the notebooks of docs/notebooks, as they were saved
python      what mkdocstrings writes of the public names
project     files of the repository that are pages of the site too, and links to them
"""

"""Whether views help.

Eight views an image embedded by the teacher and replayed to the student (`cache-features --views`), crops and
flips, or these after RandAugment of the whole picture, against fresh crops with the plain image's embedding.
For every kind of view the teacher runs once, and for every seed one student learns each way, with the recipe
of scripts/benchmarks/drawn.toml on the pictures of `distill demo`. Macro accuracies in percent, mean
(standard deviation) of three seeds, 14 epochs unless said otherwise.
"""

COLUMNS = {
    "smallest crop": "{} of the area",
    "views": "{}",
    **dict.fromkeys(("ID", "OOD"), "{0[0]:.1f} ({0[1]:.1f})"),
}

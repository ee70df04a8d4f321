"""From photos and names to a model.

What `distill adapt` makes, and what each of its steps is worth: the closed form beside the student that is
trained from it, macro accuracy in percent among the names that have labelled photos (ID) and among names that
no label was learnt of (OOD). EfficientNet-Lite0 with ImageNet weights. Other work took most of the two cores:
times and latencies are longer than they need be. The command prints the numbers.
"""

COLUMNS = {
    "photos": "{}",
    "step": "{}",
    "ID": "{:.1f}",
    "OOD": "{:.1f}",
    "set aside": "{:.1f}",
    "ECE of all names, ID, OOD": "{0[0]:.1f}, {0[1]:.1f}",
    "MB": "{:.1f}",
    "p50, ms": "{:.1f}",
    "p99, ms": "{:.1f}",
    "there after, min": "{:.0f}",
}

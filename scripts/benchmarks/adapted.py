"""From photos and names to a model.

What `distill adapt` makes, and what each of its steps is worth: the closed form beside the student that is
trained from it, macro accuracy in percent among the names that have labelled photos (ID) and among names that
no label was learnt of (OOD). Photos of Oxford Flowers-102 of 64 px with a real CLIP ViT-B/32's embeddings:
1,284 labelled ones and 944 without a label, or 2,516 without a single one, of all 102 names; "all names" is
macro accuracy on 600 other photos by their true labels, which the command does not see. EfficientNet-Lite0
with ImageNet weights at 96 px, as the budget had it. Other work took most of the two cores: times and
latencies are many times what they need be. The command prints the numbers; `distill evaluate --on` those of
all names.
"""

COLUMNS = {
    "photos": "{}",
    "step": "{}",
    "ID": "{:.1f}",
    "OOD": "{:.1f}",
    "set aside": "{:.1f}",
    "as the teacher": "{:.1f}",
    "all names, right": "{:.1f}",
    "ECE of all names, ID, OOD": "{0[0]:.1f}, {0[1]:.1f}",
    "MB": "{:.1f}",
    "p50, ms": "{:.1f}",
    "p99, ms": "{:.1f}",
    "there after, min": "{:.0f}",
}

"""From photos and names to a model.

What `distill adapt` makes, and what each of its steps is worth, each beside the same student without it: the
closed form, the head that is trained on the same features, the whole student. Macro accuracy in percent among
the names that have labelled photos (ID) and among names that no label was learnt of (OOD). Photos of Oxford
Flowers-102 of 64 px with a real CLIP ViT-B/32's embeddings: 1,284 labelled ones with 944 without a label of
the OOD names (pool) or without these, or 2,516 without a single one, of all 102 names; "all names" is macro
accuracy on 600 other photos by their true labels, which the command does not see. EfficientNet-Lite0 with
ImageNet weights at 160 px, without labels at 96. The command prints the numbers and keeps them in model.json;
those without the pool are of `distill train` with the same settings and `data.pool_share=0`; `distill
evaluate --on` has those of all names.
"""

COLUMNS = {
    "photos": "{}",
    "step": "{}",
    "ID": "{:.1f}",
    "OOD": "{:.1f}",
    "set aside": "{:.1f}",
    "as the teacher": "{:.1f}",
    "all names, right": "{:.1f}",
    "ECE among all, ID, OOD": "{0[0]:.1f}, {0[1]:.1f}",
    "not calibrated": "{0[0]:.1f}, {0[1]:.1f}",
    "MB": "{:.1f}",
    "p50, ms": "{:.1f}",
    "p99, ms": "{:.1f}",
    "there after, min": "{:.1f}",
}

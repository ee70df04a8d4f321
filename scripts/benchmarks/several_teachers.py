"""Several teachers.

A student of two teachers beside a student of either, and what balances the two: macro accuracy in percent of
each head and of the mean of both, among a split's own classes, over three seeds. Photos of Oxford Flowers-102
of 64 px: 1,572 to learn from, 636 ID and 943 OOD ones judged. Teacher 1 is a real CLIP ViT-B/32 (of the
pictures at their full size), teacher 2 the ImageNet trunk of EfficientNet-Lite0, its 1,280 features of the 64
px pictures at 160 px; the texts of both are means of sixteen images of each class. By itself teacher 1 has
94.0 / 96.1 (ID / OOD), teacher 2 72.4 / 80.1. Each row changes one thing.
"""

COLUMNS = {
    "student": "{}",
    "teachers": "{}",
    "what differs": "{}",
    "head 1, ID": "{}",
    "head 1, OOD": "{}",
    "head 2, ID": "{}",
    "head 2, OOD": "{}",
    "mean, ID": "{}",
    "mean, OOD": "{}",
}

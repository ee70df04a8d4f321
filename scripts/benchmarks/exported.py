"""Exported models.

Three students of Oxford Flowers-102 (a real CLIP ViT-B/32's embeddings, 64 px), trained for five passes
over 1,572 images, which is little: what counts is how far each file is from its student. onnxruntime 1.32
and torch 2.13 in processes of their own that take turns, medians. Accuracy on 1,303 ID and 2,000 OOD
images, in brackets the difference to the student; speedup of one image over the torch student. The commands
print the numbers.
"""

COLUMNS = {
    "student": "{}",
    "file": "{}",
    "ID": "{0[0]:.1f} ({0[1]:+.1f})",
    "OOD": "{0[0]:.1f} ({0[1]:+.1f})",
    "cosine to the student, ID, OOD": "{0[0]:.4f}, {0[1]:.4f}",
    "p50, ms": "{:.2f}",
    "p99, ms": "{:.2f}",
    "images/s (32)": "{:,}",
    "MB": "{:.1f}",
    "memory, MB": "{:,}",
    "speedup": "{:.2f}",
}

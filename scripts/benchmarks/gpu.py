"""What a GPU reaches.

By `bash scripts/gpu_check.sh --keep MACHINE`, which is run on a machine with a GPU, in 8 minutes at most: a
ViT-L/14 of random weights in the card's own 16 bits as the teacher, drawn photos as JPEG files, students at
224 px. "Time ratio" is beside the row that its part begins with: the bare forward, the plain step. "Of the
peak" is the share of what the card can do at most by its data sheet (dense, in bfloat16). Each part is a
process of its own; memory is the most that its tensors took.
"""

COLUMNS = {
    "part": "{}",
    "what": "{}",
    "images/s": "{:,.0f}",
    "time ratio": "{:.3f}",
    "TFLOP/s": "{:.3g}",
    "of the peak": "{:.1%}",
    "GPU memory": "{:.2f} GB",
    "said": "{}",
    "goal": "{}",
    "met": "{}",
}

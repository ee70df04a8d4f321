"""EfficientNet-B0 on episodes.

`distill train` with the default recipe (224 px, 8 channels, batch 60, float32), two epochs over
120 episodes of `make-demo --image-size 224`. The commands print the numbers.
"""

COLUMNS = {"runs": "{}", "episodes/s": "{:.1f}", "peak memory": "{:.1f} GB"}

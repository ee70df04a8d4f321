"""Label photos: python classify.py PHOTO... Needs onnxruntime, numpy and pillow alone."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: it would tell its maker
import onnxruntime

FOLDER = Path(__file__).parent
MODEL = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
STEPS, TEXTS = MODEL["preprocessing"], np.load(FOLDER / "texts" / f"{MODEL['bank']}.npz")
GRAPH = min(FOLDER.glob("model*.onnx"), key=lambda path: len(path.name))
PRECISION = GRAPH.name.split(".")[1].replace("onnx", "float32")
if PRECISION in MODEL["unlike"]:
    cosine = MODEL["unlike"][PRECISION]
    print(f"{GRAPH.name} does not answer as its student does: mean cosine {cosine:.3f}", file=sys.stderr)


def prepared(photo):
    """Return what the model takes of one photo."""
    image = Image.open(photo)
    if STEPS["decoding"]["exif"]:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # more than 8 bits of grey, which would be clipped
        grey = np.asarray(image)
        bits = next(bits for bits in (8, 10, 12, 14, 16, 24, 32) if grey.max() < 2**bits)
        image = Image.fromarray((grey.clip(0) * (255 / (2**bits - 1)) + 0.5).astype(np.uint8))
    image = image.convert("RGB").resize([STEPS["resize"]] * 2, Image.Resampling.BILINEAR)
    if STEPS["where"] == "graph":
        return np.asarray(image)[None]
    start, size = round((STEPS["resize"] - STEPS["crop"]) / 2), STEPS["crop"]
    pixels = np.asarray(image, dtype=np.float32)[start : start + size, start : start + size] / 255
    return ((pixels - np.float32(STEPS["mean"])) / np.float32(STEPS["std"])).transpose(2, 0, 1)[None]


session = onnxruntime.InferenceSession(str(GRAPH), providers=["CPUExecutionProvider"])
for photo in sys.argv[1:]:
    embedding = session.run(None, {"image": prepared(photo)})[0][0]
    logits = TEXTS["embeddings"] @ embedding / MODEL["temperature"]
    scores = np.exp(logits - logits.max())
    for i in np.argsort(-logits, kind="stable")[:5]:
        print(f"{photo}\t{TEXTS['labels'][i]}\t{scores[i] / scores.sum():.4f}")

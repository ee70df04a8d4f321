"""A model as a page: one static folder that names pictures in a browser, and asks nothing of a network."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from cache.runtime.errors import UserError, WrongOption
from cache.runtime.locks import only_writer_of_file
from cache.runtime.progress import Progress, Silent
from distill.deploy.info import GRAPH, ONNX, ModelInfo
from distill.deploy.model import Model
from distill.deploy.new_folder import check_new, new_folder
from distill.deploy.vocabulary import LICENSE, ROWS
from distill.deploy.web_runtime import Runtime, runtime_for_web
from distill.judge.rejection import FAR, NEGLABEL, far_from, negatives_of

# The smallest first: a page is fetched by phones.
SMALLEST_FIRST = ("int8", "float16", "float32")
LARGEST_WHOLE = 2**15 - 1
OPTION = "--web"


@dataclass(frozen=True, kw_only=True, slots=True)
class WebPage:
    """What was written: the ``precision`` of its model, and the bytes of what a browser loads.

    ``page_bytes`` is all of the folder; ``model_bytes`` are the graph's, ``vocabulary_bytes`` those of the
    words and their rows, ``runtime_bytes`` onnxruntime-web's. Each is packed with gzip and written in
    base64: a host that compresses what it sends sends three quarters of it.
    """

    folder: Path
    precision: str
    model_bytes: int
    vocabulary_bytes: int
    runtime_bytes: int
    page_bytes: int


def write_web(
    model: Path, out: Path, *, runtime: Path | None = None, progress: Progress | None = None
) -> WebPage:
    """Write the page of an exported model into the new folder ``out``: whole, or not at all.

    It has the smallest graph that answers as the student does, the model's text banks and its vocabulary, and
    onnxruntime-web (:func:`distill.deploy.web_runtime.runtime_for_web`). Any static host shows it, and a
    browser that opens its ``index.html`` from a disk.

    UserError if ``model`` is of episodes, or its graph prepares photos itself; if ``out`` is not empty; for
    what :func:`runtime_for_web` raises.
    """
    info = ModelInfo.load(model)
    check_for_web(info, model)
    check_new(out, OPTION)
    program = runtime_for_web(runtime, progress=progress)
    opened = Model.open(model, precision=precision_for_web(info), threads=1)
    opened.class_set()  # of embeddings alone there is nothing to show
    (progress or Silent()).note(f"writing the page with the {opened.precision} model")
    content = (model / ONNX[opened.precision]).read_bytes()
    with only_writer_of_file(out.resolve()), new_folder(out, OPTION) as folder:
        for file in files("distill.deploy").joinpath("templates/web").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        _write_script(folder / "model.js", "MODEL", described_for_web(opened, size=len(content)))
        _write_script(folder / "vocabulary.js", "WORDS", _packed_vocabulary(opened))
        if LICENSE in info.files:
            (folder / LICENSE).write_bytes((model / LICENSE).read_bytes())
        _write_script(folder / "weights.js", "WEIGHTS", _packed(content))
        _write_runtime(folder, program)
        size = {file.name: file.stat().st_size for file in folder.iterdir()}
    return WebPage(
        folder=out,
        precision=opened.precision,
        model_bytes=size["weights.js"],
        vocabulary_bytes=size["vocabulary.js"] if opened.vocabulary else 0,
        runtime_bytes=size["onnxruntime.js"] + size["runtime.js"],
        page_bytes=sum(size.values()),
    )


def prepare_web(
    out: Path, runtime: Path | None, *, preprocessing: str, model: Path, progress: Progress | None = None
) -> None:
    """Raise now what :func:`write_web` would raise once a run is exported into ``model``, minutes later."""
    if preprocessing == GRAPH:
        raise WrongOption(
            "--web goes with --preprocessing outside alone", fix="a page prepares photos itself."
        )
    if out.resolve() == model.resolve():
        raise WrongOption(f"--web and --out are both {out}", fix="give the page a folder of its own.")
    check_new(out, OPTION)
    runtime_for_web(runtime, progress=progress)


def check_for_web(info: ModelInfo, model: Path) -> None:
    """Raise a UserError for a model that no page can be made of."""
    if info.objects is not None:
        raise UserError(
            f"{model} is a model of episodes, and a page is shown photos",
            fix="give a model of photos, or leave --web out.",
        )
    if info.preprocessing.where == GRAPH:
        raise UserError(
            f"{model} prepares photos in its graph, and a page prepares them itself",
            fix="export the run again without --preprocessing graph.",
        )


def precision_for_web(info: ModelInfo) -> str | None:
    """Return the smallest precision that answers as the student does, else the first that is there."""
    there = [name for name in SMALLEST_FIRST if name in info.precisions]
    return next((name for name in there if name not in info.unlike), None)


def described_for_web(model: Model, *, size: int) -> dict[str, Any]:
    """Return what a page knows of its model, whose graph has ``size`` bytes, as JSON."""
    info, steps = model.info, model.info.preprocessing
    return {
        "name": info.name,
        "arch": info.arch,
        "parameters": info.parameters,
        "precision": model.precision,
        "bytes": size,
        "embed_dim": info.embed_dim,
        "temperature": info.temperature,
        "preprocessing": {
            "resize": steps.resize,
            "crop": steps.crop,
            "start": round((steps.resize - steps.crop) / 2),
            "mean": steps.mean,
            "std": steps.std,
            "decoder": steps.decoder,
            "exif": steps.decoding.exif,
            "max_pixels": steps.decoding.max_pixels,
        },
        "banks": [_described_bank(model, name) for name in model.banks],
        "reject": _described_rejection(info, model.precision),
        "about": _of_percentages(info),
    }


def _described_bank(model: Model, name: str) -> dict[str, Any]:
    """Return a text bank with rows of 16 bits, of a cosine that takes less than 1e-5.

    ``far`` says of every word of the vocabulary whether it is far from all of the bank's names, where that is
    asked: a phone would take seconds to find it out.
    """
    bank, reject = model.banks[name], model.info.reject.get(model.precision)
    scale = max(float(np.abs(bank.embeddings).max(initial=0)), 1e-12) / LARGEST_WHOLE
    rows = np.round(bank.embeddings / scale).astype("<i2")
    names = {"labels": bank.labels, "classes": bank.classes, "texts": bank.texts}
    described = {"name": name, **names, "scale": scale, "rows": _packed(rows.tobytes())}
    if model.vocabulary is not None and reject is not None and reject.score == NEGLABEL:
        far = np.zeros(words := len(model.vocabulary), dtype=np.uint8)
        count = negatives_of(words, len(bank))
        far[far_from(bank.embeddings, model.vocabulary.rows, count=count)] = 1
        described["far"] = _packed(far.tobytes())
    return described


def _described_rejection(info: ModelInfo, precision: str) -> dict[str, Any] | None:
    reject = info.reject.get(precision)
    if reject is None:
        return None
    return {
        "score": reject.score,
        "temperature": reject.temperature,
        "thresholds": [asdict(one) for one in reject.thresholds],
        "far": FAR,
        "near_chance": any(one.near_chance for one in reject.unknown.values()),
    }


def _of_percentages(info: ModelInfo) -> str:
    if info.calibration is None:
        return "Its percentages are not calibrated."
    return f"Its percentages are calibrated on {info.calibration.images:,} images."


def _packed_vocabulary(model: Model) -> dict[str, Any] | None:
    """Return the vocabulary, its rows as they are kept."""
    vocabulary = model.vocabulary
    if vocabulary is None:
        return None
    arrays = load_file(model.folder / ROWS)
    rows = {
        name: _packed(array.astype(array.dtype.newbyteorder("<")).tobytes()) for name, array in arrays.items()
    }
    return {"words": vocabulary.words, **rows}


def _write_runtime(folder: Path, runtime: Runtime) -> None:
    (folder / "onnxruntime.js").write_bytes(runtime.script)
    packed = {"glue": _packed(runtime.glue), "wasm": _packed(runtime.wasm)}
    _write_script(folder / "runtime.js", "RUNTIME", packed)


def _packed(content: bytes) -> str:
    """Return bytes as the page unpacks them; the same for the same bytes."""
    return b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode()


def _write_script(path: Path, name: str, value: Any) -> None:
    """Write a value as a script, which a page may load from a disk too: JSON in ASCII is JavaScript."""
    path.write_text(f"globalThis.{name} = {json.dumps(value)};\n", encoding="ascii")

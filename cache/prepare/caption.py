"""One caption an image, by any image-to-text model that transformers knows."""

from __future__ import annotations

import glob
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache.prepare.captioner import GENERATION, Captioner, load_captioner, pixels_of
from cache.prepare.finished_lines import Partial, refuse_existing
from cache.runtime.atomic_files import remove_temporaries, replacing
from cache.runtime.devices import choose_device
from cache.runtime.errors import UserError, reason_of
from cache.runtime.loader_workers import batches
from cache.runtime.locks import only_writer_of_file
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import CAPTIONS, MISSING_CAPTION, read_captions
from cache.sources.data import open_data
from cache.sources.decoding import UnreadableImage
from cache.sources.samples import DataFolder, Sample
from cache.sources.splits import SPLITS, split_name


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionSummary:
    """What was written. ``failed`` maps the key of an image that was given ``a photo`` to the reason."""

    out: Path
    images: int
    captioned: int
    reused: int
    failed: Mapping[str, str]
    seconds: float


def caption(
    data: str | Path,
    *,
    model: str,
    out: Path | None = None,
    batch_size: int = 16,
    workers: int = 1,
    device: str = "auto",
    splits: Sequence[str] = (),
    progress: Progress | None = None,
) -> CaptionSummary:
    """Write one caption an image as JSON lines that ``read_captions`` reads.

    Each batch is kept at once in ``OUT.partial.jsonl``; a later run with the same model goes on from
    there, and tries again what failed.

    ``model`` is a folder that ``save_pretrained`` wrote, or a name on the Hugging Face hub; ``out`` is
    ``captions.jsonl`` in the folder of the source ``data`` when left out; ``splits`` have either name, and
    are all when left out.

    Raises
    ------
    UserError
        If an argument is wrong, ``out`` exists, or the model cannot be loaded or does not caption.
    """
    start, progress = time.perf_counter(), progress or Silent()
    folder = open_data([data])
    out = out or folder.path / CAPTIONS
    refuse_existing(out)
    samples = _samples_of(folder, splits)
    with only_writer_of_file(out):
        remove_temporaries(out.parent, of=f"{glob.escape(out.name)}.*")
        partial = Partial.beside(out)
        header = {"model": model, "generation": GENERATION}
        done = _kept(partial.resume(), header, samples, progress)
        reused = len(done)
        failed: dict[str, str] = {}
        left = {key: image for key, image in samples.items() if key not in done}
        if left:
            captioner = load_captioner(model, choose_device(device))
            if not reused:
                partial.remove()
                partial.append([header])
            progress.start(len(left))
            for rows in _caption_all(captioner, left, batch_size, workers):
                partial.append(rows)
                done.update((row["key"], row["caption"]) for row in rows)
                failed.update((row["key"], row["failed"]) for row in rows if row["failed"])
                progress.advance(len(rows))
        _write(out, {key: done[key] for key in samples})
        partial.remove()
    for key, reason in failed.items():
        progress.note(f"{key}: {reason}; its caption is {MISSING_CAPTION!r}")
    return CaptionSummary(
        out=out,
        images=len(samples),
        captioned=len(left) - len(failed),
        reused=reused,
        failed=failed,
        seconds=time.perf_counter() - start,
    )


def _samples_of(folder: DataFolder, splits: Sequence[str]) -> dict[str, Sample]:
    """Return ``{SPLIT/KEY: sample}``, sorted within each split; UserError for a split that is not there."""
    chosen = {split_name(name) for name in splits} or folder.splits.keys()
    return {
        f"{name}/{image.key}": image
        for name in SPLITS
        if name in chosen
        for image in folder.split(name).all()
    }


def _kept(
    rows: Sequence[Mapping[str, Any]],
    header: Mapping[str, Any],
    samples: Mapping[str, Sample],
    progress: Progress,
) -> dict[str, str]:
    """Return the captions that an earlier run made with this model; failures are tried again."""
    if not rows:
        return {}
    if rows[0] != header:
        progress.note(f"the captions of a stopped run with {rows[0].get('model')} are not used")
        return {}
    kept = {
        row["key"]: row["caption"]
        for row in rows[1:]
        if row.get("failed") == "" and row.get("key") in samples
    }
    progress.note(f"{len(kept):,} of {len(samples):,} captions are there from an earlier run")
    return kept


class _Images(Dataset[Any]):
    """Decodes and preprocesses one image, to pixels or the reason why not; runs in workers."""

    def __init__(self, samples: Sequence[Sample], image_processor: Callable[..., Any]) -> None:
        self.samples = samples
        self.image_processor = image_processor

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return pixels_of(self.samples[index].pictures()[0], self.image_processor)
        except UnreadableImage as error:
            return f"it cannot be read ({error})"
        # Loading tried the preprocessing, so it is this image's shape that it cannot take.
        except (ValueError, RuntimeError) as error:
            return f"the model's preprocessing refuses it ({reason_of(error)})"


def _caption_all(
    captioner: Captioner, samples: Mapping[str, Sample], batch_size: int, workers: int
) -> Iterator[list[dict[str, str]]]:
    """Yield the rows of each batch, in order: key, caption, and why it failed or ''."""
    pictures = _Images(list(samples.values()), captioner.image_processor)
    keys = iter(samples)
    for images in batches(pictures, workers, batch_size=batch_size, collate_fn=list):
        readable = [image for image in images if isinstance(image, Tensor)]
        texts = iter(captioner.captions(torch.stack(readable)) if readable else ())
        yield [_row(next(keys), image if isinstance(image, str) else next(texts), image) for image in images]


def _row(key: str, text: str, image: Tensor | str) -> dict[str, str]:
    if isinstance(image, str) or not text:
        return {"key": key, "caption": MISSING_CAPTION, "failed": text or "the model said nothing"}
    return {"key": key, "caption": text, "failed": ""}


def _write(out: Path, captions: Mapping[str, str]) -> None:
    with replacing(out) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            for key, text in captions.items():
                file.write(json.dumps({"key": key, "caption": text}) + "\n")
        if read_captions(temporary) != captions:
            raise UserError(f"{out} would not read back as it was written", fix="report this.")

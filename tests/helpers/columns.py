"""Row groups of photos, written as stage 1 writes them, and the columns of a run on them."""

from __future__ import annotations

import numpy as np
import torch

from cache import EmbeddingCache
from cache.build.added_columns import columns_of, job_of
from cache.build.captions import load_captions
from cache.build.columns import add_columns
from cache.build.options import Build, BuildOptions
from cache.runtime.distributed import ranks_of_torchrun
from cache.runtime.locks import only_writer
from cache.runtime.progress import Silent
from cache.sources.class_texts import BankTexts
from cache.sources.data import open_data
from cache.store.journal import JournalWriter
from cache.store.journal_lines import FileLine
from cache.store.manifest import Manifest
from cache.store.row_group import GroupKeys, claim_group, write_group
from cache.store.spec import CacheSpec
from cache.store.text_banks import make_bank, save_bank
from cache.teacher.load import load_teacher

BANK = "labels"


def keys_of(split, samples):
    """What the rows of some samples are of."""
    content, sizes, times = zip(*(sample.identity() for sample in samples), strict=True)
    return GroupKeys(
        split=split,
        keys=[sample.key for sample in samples],
        labels=[sample.labels for sample in samples],
        content=np.stack([np.frombuffer(bytes.fromhex(one), np.uint8) for one in content]),
        bytes=np.array(sizes),
        mtime_ns=np.array(times),
    )


def add_group(out, teacher, split, samples):
    """Embed samples as one more row group."""
    pixels = torch.stack([teacher.transform(sample.pictures()[0]) for sample in samples])
    rows = teacher.embed_images(pixels).numpy()
    name = claim_group(out, split)
    lines = write_group(
        out, name, keys_of(split, samples), {"image_embedding": {"embedding": rows.astype("float32")}}
    )
    JournalWriter(out).add(*lines)
    return name


def make_groups(out, photos, model, *, rows=5):
    """A cache of row groups of so many photos, and of a bank of their class names."""
    folder, teacher = open_data([photos]), load_teacher(model)
    manifest = Manifest(
        spec=CacheSpec(teacher=teacher.spec, dtype="float32"),
        embed_dim=teacher.embed_dim,
        splits=folder.classes,
        complete=True,
    )
    manifest.save(out)
    for split, source in folder.splits.items():
        samples = source.all()
        for start in range(0, len(samples), rows):
            add_group(out, teacher, split, samples[start : start + rows])
    embed_bank(out, teacher)
    return EmbeddingCache.open(out)


def embed_bank(out, teacher, name=BANK, template="a photo of a {}"):
    """Embed the class names of a cache as a bank."""
    manifest = Manifest.load(out)
    classes = sorted({one for names in manifest.splits.values() for one in names})
    texts = [template.format(one) for one in classes]
    bank = make_bank(name, texts, classes, teacher.embed_texts(texts)[0].numpy())
    manifest.with_bank(name, save_bank(out, bank, made_from="")).save(out)


def bank_texts(manifest):
    classes = tuple(sorted({one for names in manifest.splits.values() for one in names}))
    return BankTexts(name=BANK, texts=classes, classes=classes, templates=("{}",))


def add(out, photos, model, make=None, progress=None, **options):
    """Add the columns that options ask for, as a run does in each of its processes."""
    folder, teacher = open_data([photos]), load_teacher(model)
    captions = photos / "captions.jsonl"
    with ranks_of_torchrun() as ranks:
        manifest = Manifest.load(out)
        build = Build(
            folder=folder,
            out=out,
            teacher=teacher,
            spec=manifest.spec,
            options=BuildOptions(model=model, **{"batch_size": 4, "workers": 0, **options}),
            banks=[bank_texts(manifest)],
            captions=load_captions(captions, folder, embed_dim=16) if captions.exists() else None,
            progress=progress or Silent(),
            ranks=ranks,
        )
        job = job_of(build, manifest, columns_of(build, manifest))
        if not ranks.is_first:
            add_columns(job, manifest, *([make] if make else []))
            return None
        with only_writer(out):
            add_columns(job, manifest, *([make] if make else []))
    return EmbeddingCache.open(out)


ALL = {"views": 2, "support_views": 3, "pixels": 8, "neighbours": 2}


def column_lines(cache) -> dict[str, FileLine]:
    """The lines of a cache's columns that were added."""
    first = ("keys", "image_embedding")
    return {file: line for file, line in cache.journal.files.items() if line.column not in first}


def all_of(cache):
    """What the columns of :data:`ALL` say of every image, in the order of a split's rows, by name."""
    crops, train = cache.crop_views("train"), len(cache.split("train"))
    rows, views = np.repeat(np.arange(train), crops.views), np.tile(np.arange(crops.views), train)
    shape = (train, crops.views)
    boxes, flips = crops.crops(rows, views)
    held = {
        "boxes": boxes.reshape(*shape, 4),
        "flips": flips.reshape(shape),
        "views": crops.embeddings(rows, views).reshape(*shape, -1),
    }
    for name in cache.split_names:
        rows = cache.split(name)
        held[f"{name}/pixels"] = cache.pixels(name, side=8).images(np.arange(len(rows)))
        held[f"{name}/nearest"], held[f"{name}/similarity"] = map(np.asarray, cache.neighbours(name, BANK, 2))
        if rows.has_captions:
            held[f"{name}/captions"] = np.array(list(rows.captions))
            held[f"{name}/caption_rows"] = np.asarray(rows.caption_embeddings)
        if name != "id_test":
            held[f"{name}/support"] = cache.support_views(name, list(rows.keys))
    return held

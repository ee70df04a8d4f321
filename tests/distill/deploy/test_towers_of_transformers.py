"""From a teacher whose texts are read by transformers to a shipped model: its kept tower serves all along."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.exported import SMALL, invoke, val_photos
from helpers.kept_towers import KINDS, save_with_tokenizer

from cache import EmbeddingCache
from cache.build.add_texts import add_texts
from cache.build.from_folder import FeatureOptions, cache_features
from cache.build.text_options import TextOptions
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.teacher.load import load_teacher
from distill.config import RunConfig
from distill.deploy.class_sets import unit
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.vocabulary import Vocabulary
from distill.deploy.vocabulary_rows import VocabularySource
from distill.settings import with_settings
from distill.student.prompts import export_prompts
from distill.train.start import train as run

NEW = tuple(
    f"{how} {what}"
    for how in ("red", "ripe", "small", "two")
    for what in ("dog", "cup", "cat", "bag", "table", "plate")
)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_kept_tower_serves_from_added_texts_to_predict_where_the_teacher_is_gone(tmp_path, photos, kind):
    folder = save_with_tokenizer(kind, tmp_path / "teacher")
    options = FeatureOptions(model=f"local-dir:{folder}", device="cpu", workers=0, keep_text_tower=True)
    cache_features(photos, tmp_path / "cache", options)
    texts = [f"a sketch of {name}" for name in ("apple", "banana", "cherry", "lemon", "plum")]
    teacher = load_teacher(f"local-dir:{folder}")
    expected = teacher.embed_texts(texts)[0].numpy()
    said_of_new = teacher.embed_texts([f"a photo of {name}" for name in NEW])[0].numpy()
    shutil.rmtree(folder)
    add_texts(tmp_path / "cache", TextOptions(bank="sketch", templates=("a sketch of {}",)))
    cache = EmbeddingCache.open(tmp_path / "cache")
    np.testing.assert_allclose(cache.text_bank("sketch").embeddings, expected, rtol=1e-5, atol=1e-5)
    for name, settings in (("coop", ["prompts.learner=coop", "prompts.n_ctx=3"]), ("run", [])):
        config = with_settings(RunConfig(), [*SMALL, "train.epochs=1", *settings])
        run(config, cache_dir=cache.path, data_dir=photos, out=tmp_path / name)
    export_prompts(tmp_path / "coop", cache.path, bank="learnt")
    assert not [check for check in verify_cache(cache.path) if check.problem]

    words = tmp_path / "words.txt"
    words.write_text("\n".join(NEW) + "\n")
    options = ExportOptions(formats=("onnx", "open_clip"), vocabulary=VocabularySource(words=words))
    if kind != "open_clip":
        with pytest.raises(UserError, match="one of transformers', and open_clip builds its own"):
            export_run(tmp_path / "run", tmp_path / "model", options)
        options = replace(options, formats=("onnx",))
    export_run(tmp_path / "run", tmp_path / "model", options)
    vocabulary = Vocabulary.load(tmp_path / "model")
    rows = vocabulary.rows[[vocabulary.words.index(name) for name in NEW]]
    assert (unit(rows) * unit(said_of_new)).sum(axis=1).min() > 0.99  # kept in 8 bits
    one = val_photos(tmp_path)[0]
    predicted = invoke("predict", tmp_path / "model", one, "--names", words, "--format", "jsonl")
    assert predicted.exit_code == 0, predicted.output
    assert any(name in predicted.stdout for name in NEW)
    added = invoke("texts", tmp_path / "model", "--add", "photo of two plates", "--cache", cache.path)
    assert added.exit_code == 0, added.output

"""What docs/how-to/teachers.md says of each teacher is what open_clip and timm have."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import ROOT

from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import open_clip
import timm
from open_clip.factory import get_model_config

from cache.teacher.kinds import near_teachers, open_clip_models

PAGE = (ROOT / "docs/how-to/teachers.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match("[|] `(?!--)", line)
]
OF_TIMM = [row for row in ROWS if row[0].startswith("`timm:")]
OF_OPEN_CLIP = [row for row in ROWS if row not in OF_TIMM]
# By the first word of a licence here, what timm calls it.
LICENCES = {"Apache": "apache-2.0", "DINOv3": "dinov3-license"}


def named(row: list[str]) -> tuple[str, str]:
    return row[0].strip("`"), row[1].strip("`")


@pytest.mark.parametrize("row", OF_OPEN_CLIP, ids=lambda row: "/".join(named(row)))
def test_a_teacher_on_the_page_is_one_of_open_clips(row):
    model, tag = named(row)
    config, weights = get_model_config(model), open_clip.get_pretrained_cfg(model, tag)
    assert (model, tag) in open_clip.list_pretrained()
    assert bool(config.get("quick_gelu")) == bool(weights.get("quick_gelu"))
    assert row[2:4] == [str(config["vision_cfg"]["image_size"]), str(config["embed_dim"])]
    assert row[9] == ("`siglip`" if "hf_tokenizer_name" in config["text_cfg"] else "")


@pytest.mark.parametrize("row", OF_TIMM, ids=lambda row: "/".join(named(row)))
def test_an_image_only_teacher_on_the_page_is_one_of_timms(row):
    model, tag = named(row)
    name = f"{model.removeprefix('timm:')}.{tag}"
    assert name in timm.list_pretrained()
    weights = timm.get_pretrained_cfg(name)
    assert row[2] == str(weights.input_size[-1])
    assert LICENCES[row[8].split()[0]] == weights.license


def test_every_number_on_the_page_has_a_source_and_every_licence_a_place():
    assert len(OF_OPEN_CLIP) > 20
    assert len(OF_TIMM) > 4
    for row in ROWS:
        for mark in re.findall(r"\[(\w+)\]", " ".join(row[-4:])):
            assert f"\n- [{mark}] " in PAGE
        assert re.search(r"\[\w+\]", row[8 if row in OF_OPEN_CLIP else 7])
        assert re.search(r"\[\d+\]$", row[-1])


def test_the_names_of_open_clips_models_are_known_without_importing_it(monkeypatch):
    own = sorted(open_clip.list_models())
    monkeypatch.delitem(sys.modules, "open_clip")
    assert open_clip_models() == own


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ViT-L-14-quickgel", "did you mean 'ViT-L-14-quickgelu'"),
        ("siglip", "'ViT-B-16-SigLIP'"),
        ("vit_small_patch14_dinov2", "did you mean 'timm:vit_small_patch14_dinov2'"),
        ("dinov2", "'timm:vit_base_patch14_dinov2'"),
        ("zzzqqq", ""),
    ],
)
def test_a_mistyped_teacher_is_told_what_was_meant(name, near):
    assert near in near_teachers(name)
    assert bool(near) == bool(near_teachers(name))

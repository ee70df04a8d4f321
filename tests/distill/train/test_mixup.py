"""Mixup: which images are mixed with which, and what a mixed image's losses are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.runs import SMALL, numbers

from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.objective import nearest_texts
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.shared_batches import shared_batches
from distill.train.start import train

TEMPERATURE = 0.07


def config(*settings: str) -> RunConfig:
    return with_settings(RunConfig(), [*SMALL, "train.precision=float32", *settings])


@pytest.fixture
def opened(cached, photos):
    return lambda *settings: open_session(config(*settings), cache_dir=cached.path, data_dir=photos)


def epoch_of(session, epoch=0):
    return [batch.of(session.data) for batch in shared_batches(session, epoch, first=0)]


def test_images_are_mixed_with_others_of_their_batch_and_nothing_else_is_drawn_otherwise(opened):
    mixed, plain = epoch_of(opened("data.mixup=0.5")), epoch_of(opened())
    assert [batch.mix for batch in plain] == [None] * len(plain)
    for batch, own in zip(mixed, plain, strict=True):
        mix, images = batch.mix, own.image_BXRR
        assert sorted(mix.other_B.tolist()) == list(range(len(images)))
        assert 0.5 <= mix.share <= 1
        expected = mix.share * images + (1 - mix.share) * images[mix.other_B]
        torch.testing.assert_close(batch.image_BXRR, expected)
        assert torch.equal(batch.label_B, own.label_B)
        assert torch.equal(batch.targets[0].teacher_BD, own.targets[0].teacher_BD)
    assert len({batch.mix.share for batch in mixed}) == len(mixed)
    assert epoch_of(opened("data.mixup=0.5"), epoch=1)[0].mix.share != mixed[0].mix.share


def unit(rows):
    return F.normalize(rows.double(), dim=1)


def losses_by_hand(s, own, other, text, share):
    """In float64: ``own`` and ``other`` are (rows, captions, labels) of an image and what it is mixed with."""
    both = ((share, *own), (1 - share, *other))
    labelled = (own[2] >= 0).sum()
    log_p = (s @ text.T / TEMPERATURE).log_softmax(dim=1)
    found = {name: torch.zeros((), dtype=torch.float64) for name in ("cls", "im_cst", "vlalign", "cap")}
    for weight, rows, captions, labels in both:
        with_label = torch.where(labels >= 0)[0]
        found["cls"] -= weight * log_p[with_label, labels[with_label]].sum() / labelled
        pairs = s @ rows.T / TEMPERATURE
        both_ways = pairs.log_softmax(dim=1).diagonal() + pairs.log_softmax(dim=0).diagonal()
        found["im_cst"] -= weight * both_ways.mean() / 2
        nearest, cosines = nearest_texts(rows, text, len(text))
        theirs = (cosines / TEMPERATURE).softmax(dim=1)
        ours = (s @ text.T / TEMPERATURE).gather(1, nearest).log_softmax(dim=1)
        kept = (nearest[:, 0] == labels) | (labels < 0)
        found["vlalign"] += weight * (theirs * (theirs.log() - ours)).sum(dim=1)[kept].sum() / kept.sum()
        same = (labels[:, None] == labels) & (labels >= 0) & ~torch.eye(len(labels), dtype=torch.bool)
        found["cap"] -= weight * (s @ captions.T - 1e7 * same).log_softmax(dim=1).diagonal().mean()
    # What is nearest to both rows is their mix, and further from it than that nothing pulls.
    apart = s - share * own[0] - (1 - share) * other[0]
    between = share * (1 - share) * (own[0] - other[0]).square().sum(dim=1)
    found["mse"] = (apart.square().sum(dim=1) + between).mean()
    return found


def test_a_mixed_image_has_the_losses_of_both_images_targets_each_filtered_by_its_own_label(opened):
    session = opened("data.mixup=0.5", "loss.vlalign_filter=true", "train.batch_size=12")
    first = epoch_of(session)[0]
    labels = torch.where(torch.arange(12) % 4 == 3, -1, first.label_B)  # as of a pool
    batch, head = replace(first, label_B=labels), session.model.heads[0]
    outputs = torch.randn(12, head.stop, generator=torch.Generator().manual_seed(0))
    found, _ = session.model.losses(outputs, batch)
    targets, other = batch.targets[0], batch.mix.other_B
    rows, captions = unit(targets.teacher_BD), unit(targets.caption_BD)
    expected = losses_by_hand(
        unit(outputs),
        (rows, captions, labels),
        (rows[other], captions[other], labels[other]),
        unit(head.class_texts(session.model.class_names, outputs)),
        batch.mix.share,
    )
    assert found.keys() == {*expected, "total"}
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name
    assert float(found["total"]) == pytest.approx(float(sum(expected.values())), rel=1e-5)


def test_a_head_on_features_is_trained_on_mixed_ones(cached, photos, tmp_path):
    def history(out, *settings):
        only = config("train.head_only=trained", "student.head=stages", *settings)
        train(only, cache_dir=cached.path, data_dir=photos, out=tmp_path / out)
        return numbers(tmp_path / out)

    mixed = history("mixed", "data.mixup=1")
    assert history("plain")[0]["loss_mse"] != mixed[0]["loss_mse"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.mixup=-1"], "data.mixup is -1.*0 for none"),
        (["data.mixup=0.2", "train.head_only=closed-form"], "takes no steps"),
    ],
)
def test_mixup_where_it_means_nothing_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        config(*settings)

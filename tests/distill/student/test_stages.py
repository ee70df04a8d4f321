"""A head that reads every stage of a trunk, of any library's models; a student's parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cache.runtime.errors import UserError
from distill.data.normalisation import IMAGENET
from distill.deploy.info import OUTSIDE, Preprocessing
from distill.deploy.model import open_graph
from distill.deploy.onnx_files import UnitEmbedding, traced, write_float32
from distill.student.build import build_student
from distill.student.parts import head_of, head_parameters, trunk_parameters
from distill.student.stages import StagesStudent, Standardise, with_head

SIDE, DIM = 64, 7


def stages_of(arch: str, side: int = SIDE, **options):
    torch.manual_seed(0)
    student = build_student(arch, embed_dim=DIM, image_size=side)
    return with_head(
        student, kind=options.pop("kind", "stages"), embed_dim=DIM, image_size=side, arch=arch, **options
    )


def pictures(count=3, side=SIDE):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_lite0_has_seven_blocks_and_its_last_map():
    student = stages_of("timm:tf_efficientnet_lite0", 32)
    assert student.widths == (16, 24, 40, 80, 112, 192, 320, 1280)
    assert student.features(pictures(2, 32)).shape == (2, 2 * 2064)


@pytest.mark.parametrize(
    ("arch", "widths"),
    [
        ("resnet18", (64, 128, 256, 512)),
        ("timm:test_resnet", None),
        ("timm:test_vit", None),
        ("mobilenet_v3_small", None),
        ("alexnet", None),
        pytest.param("swin_t", None, marks=pytest.mark.long),
        pytest.param("timm:swin_tiny_patch4_window7_224", None, marks=pytest.mark.long),
        pytest.param("vit_b_32", (768,) * 13, marks=pytest.mark.long),
    ],
)
@torch.no_grad()
def test_any_model_s_stages_are_read_and_folded_for_use(arch, widths):
    side = 224 if arch.startswith(("timm:swin", "swin")) else 160 if arch == "timm:test_vit" else SIDE
    student = stages_of(arch, side).eval()
    images = pictures(3, side)
    features = student.features(images)
    assert features.shape == (3, 2 * sum(student.widths))
    assert widths is None or student.widths == widths
    assert len(student.widths) >= 3
    student.standard.fit(features.mean(dim=0), torch.rand(features.shape[1]) + 0.5)
    folded = student.folded()
    assert not list(folded.standard.buffers())
    torch.testing.assert_close(folded(images), student(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_features_are_the_mean_and_deviation_over_positions():
    student = stages_of("resnet18").eval()
    maps = {}
    trunk = student.trunk
    features = student.features(pictures())
    for i, stage in enumerate(trunk(pictures()).values()):
        maps[i] = torch.cat([stage.mean(dim=(2, 3)), stage.std(dim=(2, 3), correction=0)], dim=1)
    torch.testing.assert_close(features, torch.cat(list(maps.values()), dim=1), rtol=1e-4, atol=2e-4)


def test_every_stage_counts_alike_and_noise_is_in_units_of_a_deviation():
    torch.manual_seed(0)
    features = torch.randn(500, 2020) * 5 + 3
    standard = Standardise([10, 10, 1000, 1000], noise=0.5)
    standard.fit(features.mean(dim=0), features.std(dim=0, correction=0))
    rows = standard.eval()(features)
    assert rows[:, :20].square().sum(dim=1).mean() == pytest.approx(2, rel=1e-3)
    assert rows[:, 20:].square().sum(dim=1).mean() == pytest.approx(2, rel=1e-3)
    noise = standard.train()(features) - rows
    assert (noise / standard.unit).std() == pytest.approx(0.5, rel=0.01)


def test_a_deviation_of_nothing_has_a_gradient():
    student = stages_of("timm:test_resnet")
    student(torch.zeros(2, 3, SIDE, SIDE)).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in student.parameters())
    assert {name for name, p in student.named_parameters() if p.grad is None} == set()


def test_a_number_that_all_training_images_share_is_not_blown_up_by_another():
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    features[:, 3] = 0.25
    standard = Standardise([8]).eval()
    standard.fit(features.mean(dim=0), features.std(dim=0, correction=0))
    other = features[:1].clone()
    other[0, 3] = 1.0
    assert standard(other).abs().max() < 100


@pytest.mark.long
def test_a_head_on_stages_is_an_onnx_graph_of_the_same_rows(tmp_path):
    student = stages_of("timm:test_resnet", kind="mlp", hidden=11).eval()
    with torch.no_grad():
        features = student.features(pictures(8))
        student.standard.fit(features.mean(dim=0), features.std(dim=0))
    embedding = UnitEmbedding(student.folded()).eval()
    steps = Preprocessing(
        where=OUTSIDE, resize=SIDE, crop=SIDE, mean=IMAGENET.mean, std=IMAGENET.std, decoder="pillow"
    )
    write_float32(tmp_path / "student.onnx", traced(embedding, steps))
    rows = open_graph(tmp_path / "student.onnx")(pictures().numpy())
    expected = torch.nn.functional.normalize(student(pictures()).detach(), dim=1)
    torch.testing.assert_close(torch.from_numpy(rows), expected, rtol=0, atol=1e-4)


class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, DIM)

    def forward(self, images):
        return self.fc(images.mean(dim=(2, 3)))


def test_a_model_without_stages_says_so():
    with pytest.raises(UserError, match=r"Opaque gives no maps of its stages.*student\.head=linear"):
        with_head(Opaque(), kind="stages", embed_dim=DIM, image_size=SIDE)
    assert isinstance(with_head(Opaque(), kind="linear", embed_dim=DIM, image_size=SIDE), Opaque)


@pytest.mark.parametrize("arch", ["resnet18", "squeezenet1_1", "timm:test_vit", "timm:test_resnet"])
def test_the_head_is_what_gives_the_embedding(arch):
    side = 160 if arch == "timm:test_vit" else SIDE
    student = build_student(arch, embed_dim=DIM, image_size=side)
    head = head_of(student)
    assert head.weight.shape[0] == DIM
    parts = [{id(p) for p in part} for part in (head_parameters(student), trunk_parameters(student))]
    assert parts[0] == {id(head.weight), id(head.bias)}
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {id(p) for p in student.parameters()}


def test_the_head_on_stages_is_all_that_lies_on_the_trunk():
    student = stages_of("timm:test_resnet", kind="mlp", hidden=11)
    assert isinstance(student, StagesStudent)
    assert sum(p.numel() for p in head_parameters(student)) == (2 * sum(student.widths) + 1) * 11 + 12 * DIM
    assert {id(p) for p in trunk_parameters(student)} == {id(p) for p in student.trunk.parameters()}

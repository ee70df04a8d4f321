from __future__ import annotations

import pytest
import torch

from cache.errors import UserError
from cache.vision import torchvision
from distill.students import build_student, family, torchvision_names

SMALLEST = {"inception_v3": 75, "maxvit_t": 224}
# Each is a family of its own in how its last layer is kept; the rest of torchvision's are their kin.
TORCHVISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t",
    "vgg11", "vit_b_32",
]  # fmt: skip
TIMM = [
    "resnet10t",
    "mobilenetv3_small_050",
    "vit_tiny_patch16_224",
    "efficientvit_m0",
    "convnext_atto",
    "mixer_s32_224",
]


@pytest.mark.slow
@pytest.mark.parametrize("arch", [*TORCHVISION, *TIMM])
def test_a_students_output_is_an_embedding(arch):
    size = SMALLEST.get(arch, 64)
    student = build_student(arch, embed_dim=24, image_size=size).train()
    assert student(torch.randn(2, 3, size, size)).shape == (2, 24)


def test_every_torchvision_classifier_is_covered_by_a_family():
    kin = {
        "densenet",
        "efficientnet",
        "regnet",
        "resnet",
        "resnext",
        "wide",
        "shufflenet",
        "squeezenet",
        "swin",
        "vgg",
        "vit",
        "convnext",
        "mnasnet",
        "mobilenet",
    }
    rest = {name for name in torchvision_names() if not any(name.startswith(k) for k in kin)}
    assert rest == {"alexnet", "googlenet", "inception_v3", "maxvit_t"}


@pytest.mark.parametrize(
    ("arch", "kind"),
    [("resnet18", "cnn"), ("vit_b_32", "vit"), ("timm:resnet18", "cnn"), ("deit_tiny_patch16_224", "vit")],
)
def test_family_tells_transformers_from_the_rest(arch, kind):
    assert family(arch) == kind


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(UserError, match="'resnet18'"):
        build_student("resnet81", embed_dim=4)
    with pytest.raises(UserError, match="no student is called 'torchvision:resnet10t'"):
        build_student("torchvision:resnet10t", embed_dim=4)


def test_a_size_that_patches_do_not_divide_is_a_clear_error():
    with pytest.raises(UserError, match="50 px"):
        build_student("vit_b_32", embed_dim=4, image_size=50)
    with pytest.raises(UserError, match="32 px"):
        build_student("inception_v3", embed_dim=4, image_size=32)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_local_weights_fill_the_backbone_and_leave_the_new_last_layer(tmp_path, ending):
    torch.manual_seed(1)
    source = torchvision.models.resnet18(num_classes=7)
    path = tmp_path / f"weights.{ending}"
    if ending == "pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(source.state_dict(), path)
    student = build_student("resnet18", embed_dim=24, weights=path, image_size=32)
    torch.testing.assert_close(student.conv1.weight, source.conv1.weight)
    assert student.fc.weight.shape == (24, 512)


def test_weights_of_another_student_are_refused_by_name(tmp_path):
    torch.save(torchvision.models.resnet34(num_classes=7).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"not of this student.*unknown: layer1\.2"):
        build_student("resnet18", embed_dim=24, weights=tmp_path / "w.pt", image_size=32)
    state = torchvision.models.resnet18().state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"missing: layer1\.0\.conv1\.weight"):
        build_student("resnet18", embed_dim=24, weights=tmp_path / "w.pt", image_size=32)
    (tmp_path / "w.pt").write_text("nothing")
    with pytest.raises(UserError, match="cannot be read as weights"):
        build_student("resnet18", embed_dim=24, weights=tmp_path / "w.pt")
    with pytest.raises(UserError, match="does not exist"):
        build_student("resnet18", embed_dim=24, weights=tmp_path / "none.pt")

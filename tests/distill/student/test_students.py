from __future__ import annotations

import re

import pytest
import torch

from cache.runtime.errors import UserError
from cache.runtime.torchvision_compat import torchvision
from distill.student.build import build_student
from distill.student.names import family, torchvision_names

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
    "efficientformerv2_s0",
    "efficientnet_lite0",
    "levit_128s",
    "regnetx_002",
    "xcit_nano_12_p16_224",
]


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
    ("arch", "its_family"),
    [("resnet18", "cnn"), ("vit_b_32", "vit"), ("timm:resnet18", "cnn"), ("deit_tiny_patch16_224", "vit")],
)
def test_family_tells_transformers_from_the_rest(arch, its_family):
    assert family(arch) == its_family


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(UserError, match="'resnet18'"):
        build_student("resnet81", embed_dim=4)
    with pytest.raises(UserError, match="no student is called 'torchvision:resnet10t'"):
        build_student("torchvision:resnet10t", embed_dim=4)


def test_a_size_that_patches_do_not_divide_is_a_clear_error():
    with pytest.raises(UserError, match=r"50 px.*set student\.image_size to 32 or 64"):
        build_student("vit_b_32", embed_dim=4, image_size=50)
    with pytest.raises(UserError, match=r"200 px.*set student\.image_size to 224"):
        build_student("maxvit_t", embed_dim=4, image_size=200)
    with pytest.raises(UserError, match=r"64 px.*set student\.image_size to 224, its own size"):
        build_student("efficientformer_l1", embed_dim=4, image_size=64)
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
    student = build_student("resnet18", embed_dim=24, start=str(path), image_size=32)
    torch.testing.assert_close(student.conv1.weight, source.conv1.weight)
    assert student.fc.weight.shape == (24, 512)


def test_weights_of_another_student_are_refused_by_name(tmp_path):
    torch.save(torchvision.models.resnet34(num_classes=7).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"not of this student.*unknown: layer1\.2"):
        build_student("resnet18", embed_dim=24, start=str(tmp_path / "w.pt"), image_size=32)
    state = torchvision.models.resnet18().state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"missing: layer1\.0\.conv1\.weight"):
        build_student("resnet18", embed_dim=24, start=str(tmp_path / "w.pt"), image_size=32)
    (tmp_path / "w.pt").write_text("nothing")
    with pytest.raises(UserError, match="cannot be read as weights"):
        build_student("resnet18", embed_dim=24, start=str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match="does not exist"):
        build_student("resnet18", embed_dim=24, start=str(tmp_path / "none.pt"))


@pytest.mark.long
def test_every_torchvision_classifier_becomes_a_student():
    # RegNets compute their widths with tensors, so they cannot be built without memory; the two smallest
    # stand for the others, which differ in numbers only.
    regnets = {name for name in torchvision_names() if name.startswith("regnet_")}
    with torch.device("meta"):
        for arch in sorted(torchvision_names() - regnets):
            student = build_student(arch, embed_dim=24, image_size=224)
            assert student(torch.zeros(2, 3, 224, 224)).shape == (2, 24), arch
    for arch in ("regnet_x_400mf", "regnet_y_400mf"):
        assert build_student(arch, embed_dim=24, image_size=64)(torch.zeros(2, 3, 64, 64)).shape == (2, 24)


def published(arch, home, state):
    """Put a state dict where torchvision looks for the file it publishes, before it downloads it."""
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    path = home / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)
    return path


def as_first_published(state):
    """The names that files of torchvision's first years have."""
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12]\.)")
    return {old.sub(r"\1.\2", key): value for key, value in state.items()}


@pytest.mark.parametrize("way", ["pretrained", "weights"])
@pytest.mark.parametrize("arch", ["resnet18", "densenet121", "googlenet", "mnasnet0_5", "squeezenet1_1"])
def test_published_files_load_whether_fetched_by_torchvision_or_by_hand(tmp_path, monkeypatch, arch, way):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(1)
    options = {"init_weights": False} if arch == "googlenet" else {}
    source = torchvision.models.get_model(arch, weights=None, **options)
    path = published(arch, tmp_path, as_first_published(source.state_dict()))
    start = "pretrained" if way == "pretrained" else str(path)
    student = build_student(arch, embed_dim=24, image_size=64, start=start)
    theirs = source.state_dict()
    for key, value in student.state_dict().items():
        if value.shape == theirs[key].shape:
            assert torch.equal(value, theirs[key]), key
    assert student(torch.zeros(2, 3, 64, 64)).shape == (2, 24)


def test_a_pretrained_vit_takes_another_image_size(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.vit_b_32()
    published("vit_b_32", tmp_path, source.state_dict())
    student = build_student("vit_b_32", embed_dim=24, start="pretrained", image_size=64)
    assert student.encoder.pos_embedding.shape == (1, 5, 768)
    assert torch.equal(student.encoder.pos_embedding[:, :1], source.encoder.pos_embedding[:, :1])
    assert torch.equal(student.conv_proj.weight, source.conv_proj.weight)


def test_a_pretrained_students_last_layer_is_new_also_where_the_old_one_fits(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.resnet18()
    published("resnet18", tmp_path, source.state_dict())
    student = build_student("resnet18", embed_dim=1000, start="pretrained", image_size=32)
    assert torch.equal(student.conv1.weight, source.conv1.weight)
    assert not torch.equal(student.fc.weight, source.fc.weight)


def test_local_weights_of_the_same_outputs_keep_their_last_layer(tmp_path):
    source = torchvision.models.resnet18(num_classes=24)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    student = build_student("resnet18", embed_dim=24, start=str(tmp_path / "w.pt"), image_size=32)
    assert torch.equal(student.fc.weight, source.fc.weight)


def test_what_a_network_of_inceptions_kind_sees_does_not_depend_on_where_its_weights_came_from():
    # Their published weights are for pixels in -1..1, and a state dict does not say so.
    assert build_student("googlenet", embed_dim=4, image_size=64).transform_input


def test_weights_that_cannot_be_downloaded_are_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UserError, match=r"cannot be had.*--start FILE, or --start scratch"):
        build_student("resnet18", embed_dim=4, start="pretrained", image_size=32)

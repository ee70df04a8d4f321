"""Students and exported models from elsewhere: nothing that they name is loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import EMBED_DIM
from helpers.exported import invoke, val_photos
from helpers.foreign_code import Code, pickled

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.store.spec import IMPORTED
from distill.deploy.info import ModelInfo
from distill.student.build import build_student


@pytest.mark.parametrize(
    "arch", ["timm:hf-hub:x/y", "timm:local-dir:/tmp/x", "hf_hub:x/y", "torchvision:../x"]
)
def test_a_students_name_is_that_of_a_library_and_no_path_or_repository(arch):
    with pytest.raises(UserError, match="no student is called"):
        build_student(arch, embed_dim=EMBED_DIM)


def test_what_a_strangers_model_names_is_not_loaded(here, trained, plain):
    model = shutil.copytree(plain, here / "model")
    pickled(model / "teacher.pt")
    info = ModelInfo.load(model)
    teacher = {"model": "ViT-B-32-quickgelu", "pretrained": "model/teacher.pt", "weights_sha256": IMPORTED}
    odd = {**info.source, "cache": str(trained / "cache"), "run": str(here), "teacher": teacher}
    torch.save({"student": Code()}, here / "last.pt")
    replace(info, source=odd).save(model)
    added = invoke("texts", model, "--add", "zebra")
    assert (added.exit_code, "give --cache" in added.stderr) == (2, True)
    measured = invoke("bench-model", model, "--rounds", 1, "--repeats", 2, "--json")
    assert list(json.loads(measured.stdout)["found"]) == ["float32"]
    assert not (here / "marker").exists()


def test_a_graph_that_reads_another_file_is_refused_wherever_the_tensor_is(here, plain, trained):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def outside() -> TensorProto:
        tensor = numpy_helper.from_array(np.zeros((1,), dtype=np.float32), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        return tensor

    model = shutil.copytree(plain, here / "model")
    whole = onnx.load(str(model / "model.onnx"))
    constant = helper.make_node("Constant", [], ["c"], value=outside())
    inner = helper.make_graph([constant], "inner", [], [])
    graphs = {"tensor": lambda graph: graph.initializer.append(outside())}
    graphs["node"] = lambda graph: graph.node.append(constant)
    graphs["nested"] = lambda graph: graph.node.append(
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    )
    for name, change in graphs.items():
        odd = onnx.ModelProto()
        odd.CopyFrom(whole)
        change(odd.graph)
        (model / "model.onnx").write_bytes(odd.SerializeToString())
        info = ModelInfo.load(model)
        replace(info, files={**info.files, "model.onnx": sha256_of(model / "model.onnx")}).save(model)
        ended = invoke("predict", model, val_photos(trained)[0])
        assert (ended.exit_code, "keeps tensors in another file" in ended.stderr) == (1, True), name


def test_the_parts_of_a_graph_that_are_looked_into_are_all_that_onnx_has():
    onnx = pytest.importorskip("onnx")
    from distill.deploy.onnx_door import DATA_LOCATION, EXTERNAL_DATA, PARTS

    names = {
        **{
            "model": "ModelProto",
            "training": "TrainingInfoProto",
            "graph": "GraphProto",
            "node": "NodeProto",
        },
        **{"function": "FunctionProto", "attribute": "AttributeProto", "sparse": "SparseTensorProto"},
        **{"tensor": "TensorProto"},
    }
    role_of = {full: role for role, full in names.items()}
    for role, full in names.items():
        fields = getattr(onnx, full).DESCRIPTOR.fields
        inner = {field.number: role_of.get(field.message_type.name) for field in fields if field.message_type}
        assert {number: part for number, part in inner.items() if part} == PARTS.get(role, {}), role
    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name
    assert (tensor["external_data"].number, tensor["data_location"].number) == (EXTERNAL_DATA, DATA_LOCATION)

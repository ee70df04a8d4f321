"""What is known of a card by its name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cache.runtime.gpus import dense_peak
from cache.teacher.image_towers import chosen_precision
from distill.precision import amp_dtype_of

CARDS = {
    "NVIDIA H200": 989,
    "NVIDIA H200 NVL": 835,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A10G": 70,
    "NVIDIA A10": 125,
    "NVIDIA L4": 121,
    "NVIDIA L40S": 362,
    "Tesla T4": 65,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 4090 Laptop GPU": None,
    "NVIDIA A1000": None,
    "A card of tomorrow": None,
}


@pytest.mark.parametrize(("card", "peak"), CARDS.items())
def test_a_cards_peak_is_that_of_its_whole_name(card, peak):
    assert dense_peak(card) == peak


@pytest.mark.parametrize(("major", "dtype"), [(7, "float16"), (8, "bfloat16")])
def test_a_card_that_emulates_bfloat16_computes_in_float16(monkeypatch, major, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    cuda = torch.device("cuda", 0)
    assert chosen_precision("auto", cuda) == dtype
    assert amp_dtype_of("auto", cuda) == getattr(torch, dtype)

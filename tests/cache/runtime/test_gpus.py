"""What is known of a card by its name."""

from __future__ import annotations

import pytest

from cache.runtime.gpus import dense_peak

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

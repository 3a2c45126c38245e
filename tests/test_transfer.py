"""Nothing in a step waits for a GPU: what is copied is pinned, what stays the same is copied once."""

from __future__ import annotations

import pytest
import torch

import bootdiff.data.conditions as conditions
from bootdiff.core.condition import Condition
from bootdiff.core.randomness import Draw, _epoch_order
from bootdiff.core.transfer import to_device
from bootdiff.data.conditions import Classes


class Pinned:
    """Stands in for pinned memory on a machine without a GPU."""

    def __init__(self) -> None:
        self.moved: list[tuple[object, bool]] = []

    def to(self, device: object, non_blocking: bool = False) -> str:
        self.moved.append((device, non_blocking))
        return "there"


def test_only_a_copy_to_cuda_is_pinned_and_not_waited_for(monkeypatch):
    pinned = Pinned()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned)
    value = torch.arange(3)
    assert to_device(value, "cpu") is value and not pinned.moved
    assert to_device(value, "meta").device.type == "meta" and not pinned.moved
    assert to_device(value, torch.device("cuda", 0)) == "there"
    assert pinned.moved == [(torch.device("cuda", 0), True)]


def test_an_expanded_tensor_is_laid_out_before_it_is_pinned(monkeypatch):
    strides = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: strides.append(self.stride()) or Pinned())
    to_device(torch.zeros(1, 3).expand(2, 3), "cuda")
    assert strides == [(3, 1)]  # (0, 1) has no memory of its own for its second row


def test_a_condition_moves_that_way(monkeypatch):
    asked = []
    monkeypatch.setattr("bootdiff.core.condition.to_device", lambda value, device: asked.append(device) or value)
    Condition({"a": torch.zeros(2), "b": torch.zeros(2)}).to("cuda")
    assert asked == ["cuda", "cuda"]


@pytest.mark.parametrize(
    ("count", "batch", "start", "stop"), [(7, 4, 0, 4), (7, 20, 3, 19), (5, 5, 0, 5), (100, 8, 2, 6)]
)
def test_a_visit_is_that_of_every_place_by_itself(count, batch, start, stop):
    for step in (0, 1, 5):
        draw = Draw(3, step, "turn", start, stop, batch)
        places = range(step * batch + start, step * batch + stop)
        one_by_one = torch.stack([_epoch_order(3, place // count, count)[place % count] for place in places])
        assert torch.equal(draw.visit(count), one_by_one)


def test_the_table_of_labels_is_made_once_a_device():
    conditions._table.cache_clear()
    draw = Draw(0, 0, "turn", 0, 32, 32)
    first, second = Classes([4, 7]).draw(draw), Classes([4, 7]).listed(0, 0, 4)
    assert set(first["classes"].tolist()) == {4, 7} and second["classes"].tolist() == [4, 7, 4, 7]
    assert conditions._table.cache_info().misses == 1

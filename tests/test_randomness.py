"""Draws depend on (seed, step, turn, sample) and on nothing else."""

import pytest
import torch

from bootdiff.core.condition import Condition
from bootdiff.core.randomness import BLOCK, Draw, sample_noise


def draw(start=0, stop=64, **words) -> Draw:
    fields = {"seed": 1, "step": 2, "turn": "student", "batch_size": 64, **words}
    return Draw(fields["seed"], fields["step"], fields["turn"], start, stop, fields["batch_size"])


def test_any_split_of_the_batch_draws_the_same_values():
    whole = draw().normal("noise", (2, 3))
    for size in (1, 5, BLOCK, 32):
        parts = [draw(i, min(64, i + size)).normal("noise", (2, 3)) for i in range(0, 64, size)]
        assert torch.equal(torch.cat(parts), whole)


def test_every_word_matters():
    values = draw().normal("noise", (4,))
    others = [draw(seed=2), draw(step=3), draw(turn="fake")]
    assert all(not torch.equal(other.normal("noise", (4,)), values) for other in others)
    assert not torch.equal(draw().normal("else", (4,)), values)


def test_values_have_their_distributions():
    many = draw(0, 40_000)
    normal, uniform = many.normal("a", ()), many.uniform("b")
    assert abs(float(normal.mean())) < 0.02 and abs(float(normal.std()) - 1) < 0.02
    assert abs(float(uniform.mean()) - 0.5) < 0.01 and float(uniform.min()) >= 0 and float(uniform.max()) < 1
    assert many.integers("c", 7).unique().tolist() == list(range(7))


def test_an_epoch_visits_every_item_once():
    steps = [draw(0, 8, step=i, batch_size=8).visit(24) for i in range(6)]
    first, second = torch.cat(steps[:3]), torch.cat(steps[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(24))
    assert not torch.equal(first, second)


def test_sampling_noise_is_diffusers_own():
    noise = sample_noise(10, 0, 3, (1, 4, 4))
    expected = torch.randn(1, 4, 4, generator=torch.Generator("cpu").manual_seed(12))
    assert torch.equal(noise[2], expected)
    assert torch.equal(sample_noise(10, 2, 3, (1, 4, 4))[0], expected)


def test_a_condition_is_split_joined_and_checked():
    condition = Condition({"labels": torch.arange(4)})
    assert condition.index(slice(1, 3))["labels"].tolist() == [1, 2]
    assert condition.repeat(2)["labels"].tolist() == [0, 1, 2, 3] * 2
    joined = Condition.cat([condition.index(slice(2, 4)), condition.to("cpu").index(slice(0, 1))])
    assert joined["labels"].tolist() == [2, 3, 0] and len(Condition()) == 0
    with pytest.raises(ValueError, match="batch size"):
        Condition({"a": torch.zeros(2), "b": torch.zeros(3)})

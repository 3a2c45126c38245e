"""What is read of a network that nobody knows: a layer that sees the image, its channels, with its conditions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bootdiff import Classes, distill
from bootdiff.config.settings import make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError
from bootdiff.evaluation.teacher_space import TeacherSpace
from bootdiff.methods.registry import find_method
from bootdiff.schedules import Cosine
from bootdiff.teachers import CallableTeacher
from bootdiff.teachers.features import TeacherFeatures


def features_of(network: nn.Module, shape: tuple[int, ...]) -> TeacherFeatures:
    return TeacherFeatures.of_any(CallableTeacher(network, Cosine(), "sample", shape), 0.1)


class Timed(nn.Module):
    """Residual blocks, each of which is told the time by a layer of its own."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
        self.times = nn.ModuleList([nn.Linear(1, 6) for _ in range(blocks)])
        self.blocks = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1) for _ in range(blocks)])

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        x = self.first(x)
        for time, block in zip(self.times, self.blocks, strict=True):
            x = x + block(torch.tanh(x + time(timestep.view(-1, 1).float() / 1000)[:, :, None, None]))
        return self.last(x)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_layer_that_sees_only_the_time_has_no_features(blocks):
    read = features_of(Timed(blocks), (1, 4, 4)).read(torch.randn(4, 1, 4, 4), Condition())
    assert read.shape == (4, 6) and float(read.std(0).min()) > 1e-3


class Kind(nn.Module):
    """Three layers of one kind, with 16 channels in between."""

    def __init__(self, layer: type[nn.Module], **more: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(layer(a, b, **more) for a, b in ((2, 16), (16, 16), (16, 2))))

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("network, shape", [
    (Kind(nn.Conv1d, kernel_size=3, padding=1), (2, 10)),
    (Kind(nn.Linear), (2,)),
    (Kind(nn.Linear), (5, 2)),
    (Kind(nn.Linear), (4, 5, 2)),
    (Kind(nn.Conv2d, kernel_size=1), (2, 4, 5)),
    (Kind(nn.Conv3d, kernel_size=1), (2, 2, 3, 3)),
])  # fmt: skip
def test_channels_stay_and_positions_are_averaged(network, shape):
    features, x = features_of(network, shape), torch.randn(3, *shape)
    assert features.read(x, Condition()).shape == (3, 16)
    by_position, _ = features.shown(x, torch.full((3,), 0.1), Condition())
    assert by_position.shape[::2] == (3, 16)
    torch.testing.assert_close(by_position.mean(1), features.read(x, Condition()))


class Told(nn.Module):
    """It needs to be told a class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, timestep: Tensor, classes: Tensor) -> Tensor:
        seen = torch.tanh(self.a(torch.cat([x, classes[:, None].float()], 1)))
        return self.c(torch.tanh(self.b(seen)))


@pytest.mark.parametrize("method, words", [("drift", {}), ("dm", {"critic_weight": 0.1, "fake_warmup": 1})])
def test_features_are_read_under_conditions_given_from_python(tmp_path, method, words):
    teacher = CallableTeacher(Told(), Cosine(), "sample", (2,))
    asked = {"steps": 3, "batch_size": 8, "pairs": 8, "pair_steps": 2, "watch_every": 0, "t_max": 0.9, **words}
    asked = make_settings(find_method(method).settings, asked)
    assert distill(teacher, tmp_path / "run", asked, method, conditions=Classes([0, 1])).data_free


def test_a_space_of_a_network_that_needs_a_condition_or_has_no_layers_is_refused_in_one_line():
    class Still(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
            return 0 * x

    with pytest.raises(BootdiffError, match=r"--features teacher: .*classes.*Name another"):
        TeacherSpace(CallableTeacher(Told(), Cosine(), "sample", (2,)))
    with pytest.raises(BootdiffError, match=r"no layer of .* Name another"):
        TeacherSpace(CallableTeacher(Still(), Cosine(), "sample", (2,)))

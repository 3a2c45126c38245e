"""Metrics on feature tensors: closed forms, torchmetrics' figures, and intervals that hold what they say."""

import json
import math
import pickle
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bootdiff.core.errors import BootdiffError
from bootdiff.metrics import kernel, speed
from bootdiff.metrics import precision_recall as neighbours
from bootdiff.metrics.diversity import Diversity
from bootdiff.metrics.estimate import Estimate
from bootdiff.metrics.faithfulness import share
from bootdiff.metrics.frechet import Accumulator, GroupedAccumulator, Statistics, frechet_distance
from bootdiff.metrics.inception_score import InceptionScore, split_of
from bootdiff.metrics.kernel import kernel_distance
from bootdiff.metrics.precision_recall import precision_recall
from bootdiff.metrics.speed import latency

TELLS_OF_MEMORY = pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")


class Identity(nn.Identity):
    """What torchmetrics asks of a feature extractor."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def statistics(features: Tensor) -> Statistics:
    accumulator = Accumulator()
    accumulator.add(features)
    return accumulator.statistics()


def grouped(features: Tensor, size: int, processes: int = 1) -> GroupedAccumulator:
    """Batches of ``size`` dealt to processes in turns, then merged, the last process first."""
    every = [GroupedAccumulator() for _ in range(processes)]
    for number, batch in enumerate(features.split(size)):
        every[number % processes].add(batch, number * size)
    whole = GroupedAccumulator()
    for one in reversed(every):
        whole.merge(one)
    return whole


# Fréchet distance


def test_the_frechet_distance_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, fake = normals(400, 12), 1.5 * normals(300, 12, seed=1) @ normals(12, 12, seed=2) + 0.3
    theirs = FrechetInceptionDistance(Identity(12))
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    assert frechet_distance(statistics(fake), statistics(real)) == pytest.approx(float(theirs.compute()), rel=1e-8)


def test_fewer_samples_than_features_give_a_singular_covariance_and_a_right_distance():
    """Both sets on the same two axes of eight: the distance is that of the two axes, whichever is the reference."""
    axes, a, b = torch.linalg.qr(normals(8, 2)).Q.T, normals(6, 2, seed=1), 3 * normals(7, 2, seed=2)
    flat, wide = (statistics(a), statistics(b)), (statistics(a @ axes), statistics(b @ axes))
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(*flat), rel=1e-6)
    assert frechet_distance(*reversed(wide)) == pytest.approx(frechet_distance(*flat), rel=1e-6)


def test_far_from_the_origin_no_digits_are_lost():
    features = normals(1000, 3) + 1e7
    streamed = Accumulator()
    for batch in features.split(7):
        streamed.add(batch)
    centred = features - features.mean(0)
    torch.testing.assert_close(streamed.statistics().covariance, centred.T @ centred / 999, rtol=1e-9, atol=1e-9)


def test_groups_depend_neither_on_batches_nor_on_processes():
    features, reference = normals(203, 4) + 0.2, statistics(normals(500, 4, seed=1))
    whole = grouped(features, 203).estimate(reference)
    assert whole.value == pytest.approx(frechet_distance(statistics(features), reference), rel=1e-9)
    for size, processes in ((1, 1), (64, 1), (17, 3), (10, 4)):
        part = grouped(features, size, processes).estimate(reference)
        assert (part.value, part.low, part.high) == pytest.approx((whole.value, whole.low, whole.high), rel=1e-9)
        assert part.num == 203 and part.estimator == whole.estimator


def test_the_jackknife_leaves_out_one_group_at_a_time():
    features, reference = normals(60, 3), statistics(normals(500, 3, seed=1) + 1)
    left = [statistics(features[torch.arange(60) % 10 != group]) for group in range(10)]
    distances = np.array([frechet_distance(one, reference) for one in left])
    error = math.sqrt(9 / 10 * ((distances - distances.mean()) ** 2).sum())
    ours = grouped(features, 60).estimate(reference)
    assert (ours.high - ours.value, ours.value - ours.low) == pytest.approx((1.96 * error,) * 2, rel=1e-6)
    assert grouped(features[:20], 7).estimate(reference).low is not None
    assert grouped(features[:19], 7).estimate(reference).low is None


def test_the_jackknife_tells_the_spread_of_figures():
    reference = Statistics(torch.ones(4).double(), torch.eye(4).double(), 10**6)
    every = [grouped(normals(300, 4, seed=seed), 300).estimate(reference) for seed in range(60)]
    spread = np.std([one.value for one in every])
    assert np.mean([(one.high - one.value) / 1.96 for one in every]) == pytest.approx(spread, rel=0.3)


def test_wide_features_are_kept_in_one_group_without_an_interval():
    features = normals(40, 513)
    accumulator = grouped(features, 7, processes=2)
    assert [part.count for part in accumulator.parts] == [40] + [0] * 9
    estimate = accumulator.estimate(statistics(normals(40, 513, seed=1)))
    assert estimate.low is estimate.high is None and estimate.value > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(bad):
    features = torch.zeros(5, 3)
    features[1, 2] = features[4, 0] = bad
    for gather in (Accumulator().add, lambda rows: GroupedAccumulator().add(rows, 0), Diversity().add):
        with pytest.raises(BootdiffError, match="the features of 2 of 5 samples are not finite"):
            gather(features)
    with pytest.raises(BootdiffError, match="the reference features of 2 of 5"):
        kernel_distance(torch.zeros(5, 3), features)
    with pytest.raises(BootdiffError, match="the logits of 2 of 5"):
        InceptionScore().add(features, 0)


def test_what_cannot_be_merged_is_refused():
    accumulator = Accumulator()
    accumulator.add(normals(4, 3))
    with pytest.raises(BootdiffError, match="5 features and those before 3"):
        accumulator.add(normals(4, 5))
    with pytest.raises(BootdiffError, match="10 groups and 4 groups"):
        GroupedAccumulator().merge(GroupedAccumulator(4))
    with pytest.raises(BootdiffError, match="10 and 4 splits"):
        InceptionScore().merge(InceptionScore(4))
    with pytest.raises(BootdiffError, match=r"features of shape \(samples, d\), got \(2, 3, 4\)"):
        accumulator.add(torch.zeros(2, 3, 4))


def test_files_of_other_projects_are_read(tmp_path):
    """pytorch-fid, clean-fid and EDM write mu and sigma alone, the first in float64, others in float32."""
    ours = statistics(normals(50, 4))
    for kind in (np.float64, np.float32):
        np.savez(tmp_path / "a.npz", mu=ours.mean.numpy().astype(kind), sigma=ours.covariance.numpy().astype(kind))
        read, space = Statistics.load(tmp_path / "a.npz")
        assert frechet_distance(ours, read) == pytest.approx(0, abs=1e-6)
        assert read.mean.dtype == torch.float64 and space is None and read.count == 0


@pytest.mark.parametrize("layout", ["edm2", "flat"])
def test_a_pickle_is_refused_with_a_command_that_converts_it(tmp_path, layout):
    ours = statistics(normals(50, 4))
    words = {"mu": ours.mean.numpy(), "sigma": ours.covariance.numpy()}
    path = tmp_path / "reference.pkl"
    path.write_bytes(pickle.dumps({"fid": words} if layout == "edm2" else words))
    with pytest.raises(BootdiffError, match="is a pickle, which may run code") as caught:
        Statistics.load(path)
    assert "\n" not in str(caught.value)
    command = shlex.split(re.search("python -c .*", str(caught.value))[0])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert torch.equal(Statistics.load(path.with_suffix(".npz"))[0].covariance, ours.covariance)


def test_a_pickle_under_another_name_runs_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("reference.npz", "reference.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(BootdiffError, match="is a pickle"):
            Statistics.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


# Kernel distance


@TELLS_OF_MEMORY
def test_the_kernel_distance_is_that_of_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = normals(80, 6), normals(80, 6, seed=1) + 0.5
    theirs = KernelInceptionDistance(Identity(6), subsets=1, subset_size=80)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = kernel_distance(fake, real, subsets=1, size=80)
    assert ours.value == pytest.approx(float(theirs.compute()[0]), rel=1e-9)
    assert kernel_distance(fake, real).value == pytest.approx(ours.value, rel=1e-12)
    assert ours.low is None and ours.num == 80 and "one subset of 80" in ours.estimator


def test_the_kernel_distance_is_a_mean_over_pairs():
    """Two against three in one dimension, by hand."""
    x, y = [0.0, 1.0], [2.0, 0.0, -1.0]
    cubic = lambda a, b: (a * b + 1) ** 3  # noqa: E731
    own = [[cubic(a, b) for i, a in enumerate(v) for j, b in enumerate(v) if i != j] for v in (x, y)]
    expected = np.mean(own[0]) + np.mean(own[1]) - 2 * np.mean([cubic(a, b) for a in x for b in y])
    assert kernel_distance(torch.tensor(x)[:, None], torch.tensor(y)[:, None]).value == pytest.approx(expected)


def test_the_kernel_distance_of_equal_distributions_is_unbiased_around_zero():
    values = [kernel_distance(normals(30, 4, seed=2 * s), normals(30, 4, seed=2 * s + 1)).value for s in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(300) and min(values) < 0 < max(values)


def test_the_kernel_distance_is_the_same_for_the_same_seed():
    sets = normals(300, 4), normals(400, 4, seed=1) + 1
    again = [kernel_distance(*sets, subsets=5, size=50, seed=seed).value for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


@pytest.mark.parametrize("block", [kernel.BLOCK, 500])
def test_the_kernel_distance_is_a_mean_over_subsets(monkeypatch, block):
    """Drawn here as there; many small subsets are sums over the whole kernel, few are computed one by one."""
    monkeypatch.setattr(kernel, "BLOCK", block)
    x, y = normals(90, 4) + 0.5, normals(70, 4, seed=1)
    for subsets, size in ((40, 20), (3, 20)):
        draw = torch.Generator().manual_seed(5)
        values = []
        for _ in range(subsets):
            rows = [torch.randperm(num, generator=draw)[:size] for num in (90, 70)]
            values.append(kernel_distance(x[rows[0]], y[rows[1]]).value)
        assert kernel_distance(x, y, subsets, size, seed=5).value == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize("size", [40, 200])
def test_the_interval_of_the_kernel_distance_is_that_of_new_samples(size):
    """Half of a set or a tenth in each subset: the standard error is that of the mean over other samples."""
    every = [
        kernel_distance(normals(400, 2, seed=2 * s) + 1, normals(400, 2, seed=2 * s + 1), subsets=30, size=size)
        for s in range(60)
    ]
    spread = np.std([one.value for one in every])
    assert np.mean([(one.high - one.value) / 1.96 for one in every]) == pytest.approx(spread, rel=0.35)


def test_sets_that_no_kernel_distance_can_take_are_refused():
    with pytest.raises(BootdiffError, match="3 features and the reference 4"):
        kernel_distance(normals(9, 3), normals(9, 4))
    with pytest.raises(BootdiffError, match="at least two samples, got 100 of 1000 out of 1 samples"):
        kernel_distance(normals(1, 3), normals(9, 3))


# Inception Score


def score(logits: Tensor, splits: int = 1, size: int = 7) -> Estimate:
    """In batches on two processes."""
    processes = [InceptionScore(splits), InceptionScore(splits)]
    for number, batch in enumerate(logits.split(size)):
        processes[number % 2].add(batch, number * size)
    processes[1].merge(processes[0])
    return processes[1].estimate()


@TELLS_OF_MEMORY
def test_the_inception_score_is_that_of_torchmetrics():
    """torchmetrics hands its module bytes; this one looks up the logits that each byte stands for."""
    from torchmetrics.image.inception import InceptionScore as Theirs

    class Table(nn.Module):
        def forward(self, numbers: Tensor) -> Tensor:
            return logits[numbers.long()]

    logits = 2 * normals(60, 5)
    theirs = Theirs(Table(), splits=1)
    theirs.update(torch.arange(60, dtype=torch.uint8))
    assert score(logits).value == pytest.approx(float(theirs.compute()[0]), rel=1e-9)


def test_the_inception_score_is_closed_form_at_its_ends():
    assert score(torch.zeros(40, 8)).value == pytest.approx(1, abs=1e-12)
    assert score(1000 * torch.eye(8).repeat(5, 1)).value == pytest.approx(8, rel=1e-12)
    assert score(1000 * torch.eye(8)[:1].repeat(40, 1)).value == pytest.approx(1, abs=1e-12)


def test_every_split_holds_every_class_that_is_asked_for_in_turn():
    scores = InceptionScore()
    scores.add(1000 * torch.eye(10).repeat(200, 1), 0)
    assert scores.estimate().value > 9.5


def test_the_splits_of_an_inception_score_go_by_the_number_of_the_sample():
    logits = 2 * normals(64, 5)
    own = split_of(torch.arange(64), 10)
    each = [score(logits[own == split]).value for split in range(10)]
    for size in (1, 9, 64):
        ours = score(logits, 10, size)
        assert ours.value == pytest.approx(np.mean(each), rel=1e-9)
        assert ours.high - ours.value == pytest.approx(1.96 * np.std(each, ddof=1) / math.sqrt(10), rel=1e-9)
    assert score(logits[:4], 10).num == 4
    with pytest.raises(BootdiffError, match="at least one sample"):
        InceptionScore().estimate()
    with pytest.raises(BootdiffError, match="of 5 classes came before, now of 4"):
        scores = InceptionScore()
        scores.add(logits, 0)
        scores.add(logits[:, :4], 64)


# Precision and recall


def by_hand(points: Tensor, centres: Tensor, k: int) -> float:
    """The definition, with every distance at once."""
    between = lambda a, b: (a[:, None] - b[None]).square().sum(-1)  # noqa: E731
    radii = between(centres, centres).sort(1).values[:, k]
    return float((between(points, centres) <= radii).any(1).double().mean())


@pytest.mark.parametrize("shift", [0, 1e5])
@pytest.mark.parametrize("block", [neighbours.BLOCK, 200])
def test_precision_and_recall_are_their_definition(monkeypatch, shift, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    x, y = normals(150, 6) + shift, 0.8 * normals(130, 6, seed=1) + 0.8 + shift
    precision, recall = precision_recall(x, y)
    assert (precision.value, recall.value) == (by_hand(x, y, 3), by_hand(y, x, 3))
    assert 0 < precision.value < 1 and 0 < recall.value < 1 and (precision.num, recall.num) == (150, 130)


def test_identical_sets_have_precision_and_recall_one_and_far_sets_none():
    """Also with samples so often alike that their balls are points."""
    x = normals(40, 5).repeat(5, 1) + 100
    assert [one.value for one in precision_recall(x, x[torch.randperm(200)])] == [1, 1]
    assert [one.value for one in precision_recall(x, x + 50)] == [0, 0]


def test_a_point_on_the_edge_of_a_ball_is_within_it():
    """Whole numbers on a line, two neighbours each: the balls of 0 … 9 end at −2 and 11."""
    line = torch.arange(10.0)[:, None]
    points = torch.tensor([-3.0, -2.0, 4.0, 11.0, 12.0])[:, None]
    assert precision_recall(points, line, k=2)[0].value == 3 / 5


def test_missing_half_of_the_modes_halves_the_recall_only():
    modes = torch.tensor([-50.0, 50.0])
    real = normals(400, 2) + modes[torch.arange(400) % 2][:, None]
    precision, recall = precision_recall(normals(200, 2, seed=1) + modes[0], real)
    assert precision.value > 0.9 and recall.value == pytest.approx(0.5, abs=0.05)
    assert recall.low < 0.5 < recall.high


def test_neighbours_need_samples():
    with pytest.raises(BootdiffError, match="k = 3 need more than 3 samples in each set, got 9 and 3"):
        precision_recall(normals(9, 2), normals(3, 2))
    with pytest.raises(BootdiffError, match="2 features and the reference 3"):
        precision_recall(normals(9, 2), normals(9, 3))


# Diversity, shares, speed and the estimate itself


def test_diversity_is_the_distance_of_two_samples():
    """√(2 tr Cov): over all pairs of different samples of one label, by hand."""
    features, labels = normals(40, 3) * torch.tensor([1, 2, 3]) + 1e3, torch.arange(40) % 4
    ours = Diversity()
    for batch in torch.arange(40).split(9):
        ours.add(features[batch], labels[batch])
    pairs = torch.cdist(features, features).square()
    alike = (labels[:, None] == labels) & ~torch.eye(40, dtype=torch.bool)
    estimate = ours.estimate()
    assert estimate.value == pytest.approx(math.sqrt(float(pairs[alike].mean())), rel=1e-6)
    assert estimate.num == 40 and "within 4 conditions" in estimate.estimator


def test_diversity_is_pooled_within_labels():
    """Labels far apart, of unequal sizes and spreads: the distance between them does not count."""
    a, b = normals(30, 2), 5 * normals(10, 2, seed=1) + 1000
    pooled = 2 * float(a.T.cov().trace() * 29 + b.T.cov().trace() * 9) / 38
    parts = [Diversity(), Diversity()]
    parts[0].add(torch.cat([a[:20], b[:3]]), torch.tensor([7] * 20 + [2] * 3))
    parts[1].add(torch.cat([a[20:], b[3:]]), torch.tensor([7] * 10 + [2] * 7))
    parts[0].merge(parts[1])
    assert parts[0].estimate().value == pytest.approx(math.sqrt(pooled), rel=1e-9)
    alone = Diversity()
    alone.add(a)
    assert alone.estimate().value == pytest.approx(math.sqrt(2 * float(a.T.cov().trace())), rel=1e-9)


def test_one_answer_to_every_noise_has_no_diversity():
    ours = Diversity()
    ours.add(torch.full((5, 3), 0.1), torch.zeros(5))
    assert ours.estimate().value == 0
    lonely = Diversity()
    lonely.add(normals(3, 2), torch.arange(3))
    with pytest.raises(BootdiffError, match="two samples of the same condition, got 3 of 3"):
        lonely.estimate()
    with pytest.raises(BootdiffError, match="expected 3 labels"):
        lonely.add(normals(3, 2), torch.arange(2))


@pytest.mark.parametrize(("correct", "low", "high"), [(0, 0, 0.2775), (5, 0.2366, 0.7634), (10, 0.7225, 1)])
def test_a_share_has_wilsons_interval(correct, low, high):
    ours = share(correct, 10)
    assert (ours.value, ours.num) == (correct / 10, 10)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("correct", "asked"), [(0, 0), (3, 2), (-1, 2)])
def test_a_share_of_nothing_is_refused(correct, asked):
    with pytest.raises(BootdiffError, match=f"got {correct} of {asked}"):
        share(correct, asked)


def seeds(*values: float) -> list[Estimate]:
    return [Estimate(value, 100, "distance; jackknife", value - 1, value + 2) for value in values]


def test_the_mean_over_noise_seeds_says_what_its_interval_is():
    assert Estimate.mean_of(seeds(4)) == seeds(4)[0]
    two = Estimate.mean_of(seeds(4, 1))
    assert two == Estimate(2.5, 200, "distance, mean of 2 noise seeds; smallest and largest", 1, 4)
    three = Estimate.mean_of(seeds(1, 2, 6))
    half = 1.96 * math.sqrt(7) / math.sqrt(3)
    assert (three.value, three.low, three.high) == pytest.approx((3, 3 - half, 3 + half))
    assert three.num == 300 and three.estimator == "distance, mean of 3 noise seeds; ± 1.96 standard errors"
    with pytest.raises(BootdiffError, match="at least one noise seed"):
        Estimate.mean_of([])


def test_an_estimate_is_json():
    words = {"value": 0.5, "num": 2, "estimator": "share", "low": None, "high": None}
    assert json.loads(json.dumps(Estimate(0.5, 2, "share").as_json())) == words
    assert Estimate.around(0.1, 1.0, 2, "distance", lowest=0).low == 0


def test_latency_is_the_median_of_the_rounds_after_the_warm_up(monkeypatch):
    """On a clock that each call moves on."""
    now, durations = [0.0], iter([50.0, 9.0, 0.001, 0.004, 0.002])

    def call() -> None:
        now[0] += next(durations)

    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    ours = latency(call, torch.device("cpu"), warm_up=2, rounds=3)
    assert (ours.value, ours.low, ours.high) == pytest.approx((2, 1, 4)) and ours.num == 3
    assert "fastest and slowest" in ours.estimator
    with pytest.raises(BootdiffError, match="at least one round"):
        latency(call, torch.device("cpu"), rounds=0)

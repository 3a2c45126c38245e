"""What the metrics on features cost, and how far the Fréchet distance is from torchmetrics' on a smaller set.

    python benchmarks/metrics.py [--num 50000] [--features 2048] [--threads 2]

Random features, made batch by batch outside the clock. The first row is streamed: its peak memory, of the whole process
with its imports, does not grow with the samples. Kernel distance, precision and recall keep theirs.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from common import save, table
from torch import Tensor, nn

from bootdiff.metrics.frechet import Accumulator, GroupedAccumulator, Statistics, frechet_distance
from bootdiff.metrics.kernel import kernel_distance
from bootdiff.metrics.precision_recall import precision_recall

SEED = 0


class Identity(nn.Identity):
    """What torchmetrics asks of a feature extractor."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def main() -> None:
    """Measure and print."""
    options = arguments()
    torch.set_num_threads(options.threads)
    before = peak()
    streamed, figures = frechet(options), {}
    figures["Fréchet distance, streamed"] = (options.num, *streamed)
    figures["kernel distance"] = (options.kept, *kernel(options))
    figures["precision and recall"] = (options.kept, *neighbours(options))
    away, theirs = beside_torchmetrics(options)
    print(f"{options.features} features, {options.threads} threads; peak memory before: {before:.2f} GB\n")
    rows = [[name, num, f"{seconds:.1f}", f"{memory:.2f}"] for name, (num, seconds, memory) in figures.items()]
    table(rows, ["metric", "samples", "seconds", "peak memory so far, GB"])
    print(f"\nFréchet distance of {options.small} × {options.small_features}, relative difference to torchmetrics")
    print(f"in float64: {away:.1e}; ours {theirs[0]:.3f} s, torchmetrics {theirs[1]:.3f} s")
    save(options.output, {**vars(options), "figures": figures, "away": away, "output": str(options.output)})


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--num", type=int, default=50_000, help="samples of the streamed distance")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=1000)
    parser.add_argument("--kept", type=int, default=10_000, help="samples, and reference samples, of the others")
    parser.add_argument("--small", type=int, default=2000, help="samples beside torchmetrics")
    parser.add_argument("--small-features", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    return parser.parse_args()


def batches(num: int, width: int, size: int, seed: int) -> Iterator[Tensor]:
    """Random features in float32, of other scales in other directions and, as Inception's, not negative."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.1, 1, width)
    for start in range(0, num, size):
        yield (0.3 + scale * torch.randn(min(size, num - start), width, generator=generator)).relu_()


def frechet(options: argparse.Namespace) -> tuple[float, float]:
    """(seconds, GB) from features to the figure; the reference is there already, as from a file."""
    reference = statistics(options.batch_size * 5, options.features, options.batch_size, SEED + 1)
    gathered, seconds, first = GroupedAccumulator(), 0.0, 0
    for batch in batches(options.num, options.features, options.batch_size, SEED):
        started = time.perf_counter()
        gathered.add(batch, first)
        seconds += time.perf_counter() - started
        first += len(batch)
    started = time.perf_counter()
    gathered.estimate(reference)
    return seconds + time.perf_counter() - started, peak()


def kernel(options: argparse.Namespace) -> tuple[float, float]:
    """(seconds, GB) with the usual 100 subsets of 1,000."""
    ours, real = (whole(options.kept, options.features, SEED + number) for number in range(2))
    started = time.perf_counter()
    kernel_distance(ours, real)
    return time.perf_counter() - started, peak()


def neighbours(options: argparse.Namespace) -> tuple[float, float]:
    """(seconds, GB)."""
    ours, real = (whole(options.kept, options.features, SEED + number) for number in range(2))
    started = time.perf_counter()
    precision_recall(ours, real)
    return time.perf_counter() - started, peak()


def beside_torchmetrics(options: argparse.Namespace) -> tuple[float, tuple[float, float]]:
    """Relative difference of the two distances in float64, and the seconds of each."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    ours, real = (whole(options.small, options.small_features, SEED + number).double() for number in range(2))
    started = time.perf_counter()
    gathered = [Accumulator(), Accumulator()]
    for accumulator, features in zip(gathered, (ours, real), strict=True):
        accumulator.add(features)
    figure = frechet_distance(*(one.statistics() for one in gathered))
    between = time.perf_counter()
    theirs = FrechetInceptionDistance(Identity(options.small_features))
    theirs.update(ours, real=False)
    theirs.update(real, real=True)
    other = float(theirs.compute())
    return abs(figure / other - 1), (between - started, time.perf_counter() - between)


def statistics(num: int, width: int, size: int, seed: int) -> Statistics:
    """Of random features."""
    accumulator = Accumulator()
    for batch in batches(num, width, size, seed):
        accumulator.add(batch)
    return accumulator.statistics()


def whole(num: int, width: int, seed: int) -> Tensor:
    """Random features (num, width) at once."""
    return torch.cat(list(batches(num, width, 1000, seed)))


def peak() -> float:
    """The most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()

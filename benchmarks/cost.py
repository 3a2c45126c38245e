"""What a training step costs against batch size and image size, and a plot of it.

python benchmarks/cost.py --plot docs/cost.png
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from common import arguments, make_loop, measure, save, steps, table, teacher_around

from bootdiff.system.allocator import keep_freed_memory
from bootdiff.teachers import Teacher

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SIZES = (8, 12, 16, 24, 32, 48, 64)


def teacher_of(size: int) -> Teacher:
    """The digits teacher's network with random weights, for images of another size."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    return teacher_around(network, scheduler, f"{size}×{size}")


def medians(cases: list[tuple[int, int]], repeats: int) -> list[float]:
    """Seconds of a step (without its boundary) for each (image size, batch size)."""
    loops = [make_loop(teacher_of(size), batch, boundary_weight=0.0)[0] for size, batch in cases]
    seconds = measure({str(i): lambda loop=loop: steps(loop, 1) for i, loop in enumerate(loops)}, repeats)
    return [sorted(values)[len(values) // 2] for values in seconds.values()]


def slope(x: list[int], seconds: list[float]) -> float:
    """d log seconds / d log x between the last and the one before: 1 is linear."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(x[-1] / x[-2])


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, default=Path("cost.png"))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    by_batch = medians([(16, batch) for batch in BATCHES], options.repeats)
    by_size = medians([(size, 16) for size in SIZES], options.repeats)
    pixels = [size**2 for size in SIZES]
    print(f"0.21 M parameters; {options.repeats} repeats, in turns\n")
    table(
        [[batch, f"{1e3 * s:.1f}", f"{1e3 * s / batch:.2f}"] for batch, s in zip(BATCHES, by_batch, strict=True)],
        ["batch, 16×16", "ms a step", "ms a sample"],
    )
    print()
    table(
        [[f"{z}×{z}", f"{1e3 * s:.1f}", f"{1e6 * s / 16 / z**2:.2f}"] for z, s in zip(SIZES, by_size, strict=True)],
        ["image, batch 16", "ms a step", "µs a pixel"],
    )
    ends = slope(list(BATCHES), by_batch), slope(pixels, by_size)
    print(f"\nslopes at the large end (1 is linear): {ends[0]:.2f} by batch, {ends[1]:.2f} by pixels")
    draw(options.plot, by_batch, by_size, pixels)
    save(options.output, {"batches": BATCHES, "by_batch": by_batch, "sizes": SIZES, "by_size": by_size})


def draw(path: Path, by_batch: list[float], by_size: list[float], pixels: list[int]) -> None:
    """Both curves with the straight line through their largest point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    names = ("batch size, 16×16 images", "pixels an image, batch 16")
    for panel, x, seconds, name in zip(panels, (list(BATCHES), pixels), (by_batch, by_size), names, strict=True):
        panel.loglog(x, [1e3 * s for s in seconds], "o-", label="measured")
        panel.loglog(x, [1e3 * seconds[-1] * v / x[-1] for v in x], "--", color="grey", label="linear")
        panel.set_xlabel(name)
        panel.legend(frameon=False)
    panels[0].set_ylabel("milliseconds a training step")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()

"""Train the frozen classifier behind the `digits` feature space, and the reference statistics in it.

    python recipes/digits_features.py src/bootdiff/builtin/digits

Split: of scikit-learn's 1,797 digits every fifth (indices 4, 9, 14, …: 359 images) is held out. Run once, before any
student was measured; its hash stands beside every figure. Run again it would give another feature space.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from bootdiff.builtin.classifier import DigitsClassifier
from bootdiff.data.images import digit_labels, load_digits
from bootdiff.data.pictures import to_unit
from bootdiff.metrics.features import DigitsFeatures
from bootdiff.metrics.frechet import Accumulator

STEPS, BATCH = 1500, 128


def shift(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move a batch by up to one pixel and add a little noise."""
    by = torch.randint(-1, 2, (2,), generator=generator).tolist()
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), value=-1)
    moved = padded[:, :, 1 + by[0] : 9 + by[0], 1 + by[1] : 9 + by[1]]
    return moved + 0.1 * torch.randn(images.shape, generator=generator)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images, labels = to_unit(load_digits()), digit_labels()
    held_out = torch.arange(len(images)) % 5 == 4
    train = (~held_out).nonzero()[:, 0]
    network = DigitsClassifier()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        chosen = train[torch.randint(len(train), (BATCH,), generator=generator)]
        logits = network(shift(images[chosen], generator))
        loss = torch.nn.functional.cross_entropy(logits, labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        right = network(images).argmax(1) == labels
    print(f"train accuracy {right[~held_out].float().mean():.4f}, held out {right[held_out].float().mean():.4f}")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "features.safetensors")
    features = DigitsFeatures()
    accumulator = Accumulator()
    accumulator.add(features(images))
    accumulator.statistics().save(folder / "reference.npz", features.name)
    print(f"feature space {features.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""A teacher of one's own: a score network of a kind that diffusers has no class for, and how bootdiff is given it.

    python examples/score_network.py                                              # trains it on digits: half a minute
    bootdiff distill examples/score_network.py:teacher --output runs/score --steps 1500
    bootdiff sample runs/score --teacher examples/score_network.py:teacher --output score.png

Its output is the score, the gradient of log p(x_t), at the noise level sigma that it is told (docs/own-teacher.md).
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import silu

import bootdiff

WEIGHTS = Path(__file__).with_suffix(".safetensors")
LOW, HIGH = 0.02, 20.0  # the noise levels that it learns
DATA = 0.75  # the standard deviation of the digits


class ScoreNetwork(nn.Module):
    """A residual multilayer perceptron on pixels; ``network(x, sigma)`` is the score, in the shape of x."""

    def __init__(self, width: int = 384, depth: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(64 + 8, width)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width)) for _ in range(depth))
        self.last = nn.Linear(width, 64)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the score (b, 1, 8, 8) of images at noise levels ``sigma`` (b,)."""
        level, seen = sigma[:, None], x.flatten(1)
        spread = (DATA**2 + level**2).sqrt()  # of what is seen
        angles = level.log() * torch.arange(1, 5, device=x.device) / 2
        h = self.first(torch.cat([seen / spread, angles.sin(), angles.cos()], dim=1))
        for layer in self.layers:
            h = h + layer(silu(h))
        clean = (DATA / spread) ** 2 * seen + level * DATA / spread * self.last(silu(h))  # Karras et al. 2022, Eq. 7
        return ((clean - seen) / level**2).reshape(x.shape)


def train(steps: int = 3000, file: Path = WEIGHTS) -> None:
    """Train the network on the digits by denoising score matching (Song and Ermon, 2019), and save its weights."""
    torch.manual_seed(0)
    images = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1  # (1797, 1, 8, 8) in [−1, 1]
    network = ScoreNetwork()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = images[torch.randint(len(images), (128,))]
        sigma, noise = (torch.randn(len(x)) * 1.2 - 0.7).exp().clamp(LOW, HIGH), torch.randn_like(x)
        level = sigma[:, None, None, None]
        error = level * network(x + level * noise, sigma) + noise
        loss = ((1 + (level / DATA) ** 2) * error**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    save_file(network.state_dict(), file)
    print(f"{file}: loss {loss.item():.3f}")


def teacher() -> bootdiff.CallableTeacher:
    """Return the trained network as a teacher: what bootdiff calls."""
    network = ScoreNetwork()
    network.load_state_dict(load_file(WEIGHTS))
    return bootdiff.CallableTeacher(network, bootdiff.SigmaTime(LOW, HIGH), "score", (1, 8, 8))


def features(images: Tensor) -> Tensor:
    """Return features of images (b, 1, 8, 8), (b, 16): their means over squares of two pixels."""
    return nn.functional.avg_pool2d(images, 2).flatten(1)


if __name__ == "__main__":
    train()

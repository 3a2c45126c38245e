"""Sources of training batches: noise alone, images, or what a teacher makes of noises; a file for each kind."""

from bootdiff.data.sources.base import Ahead, Batch, Source
from bootdiff.data.sources.images import Description, Images, Undescribed
from bootdiff.data.sources.noise import Noise
from bootdiff.data.sources.pairs import Pairs
from bootdiff.data.sources.trajectories import Trajectories

__all__ = ["Ahead", "Batch", "Description", "Images", "Noise", "Pairs", "Source", "Trajectories", "Undescribed"]

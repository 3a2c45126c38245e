"""The training losses: distances between images, their weights, and the times at which they are taken."""

"""``python -m bootdiff``, for torchrun and accelerate."""

from bootdiff.cli.main import run

if __name__ == "__main__":
    run()

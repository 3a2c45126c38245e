"""Readers of image data sets."""

import gzip
import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from bootdiff.core.errors import BootdiffError
from bootdiff.data.images import load_images
from bootdiff.data.pictures import to_pixels, to_unit

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)


def test_idx_files_gzipped_or_not(tmp_path):
    raw = struct.pack(">HBB3I", 0, 8, 3, 5, 6, 4) + PIXELS.tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(raw + b"")
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte", "."):
        images = load_images(str(tmp_path / name))
        assert images.shape == (5, 1, 6, 4) and np.array_equal(images[:, 0].numpy(), PIXELS)


def test_parquet_with_image_bytes(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    def png(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return buffer.getvalue()

    colour = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    pyarrow.parquet.write_table(pa.table({"image": [{"bytes": png(a)} for a in colour]}), tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pa.table({"image.bytes": [png(a) for a in colour]}), tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        assert np.array_equal(load_images(str(tmp_path / name)).permute(0, 2, 3, 1).numpy(), colour)


def test_a_folder_of_images(tmp_path):
    for i, array in enumerate(PIXELS):
        (tmp_path / "sub").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "sub" / f"{i}.png")
    assert np.array_equal(load_images(str(tmp_path))[:, 0].numpy(), PIXELS)


def test_the_digits():
    pytest.importorskip("sklearn")
    digits = load_images("digits")
    assert digits.shape == (1797, 1, 8, 8) and int(digits.max()) == 255


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BootdiffError, match="no data set"):
        load_images(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BootdiffError, match="holds no images"):
        load_images(str(tmp_path / "empty"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BootdiffError, match=r"broken\.png"):
        load_images(str(tmp_path / "bad"))
    (tmp_path / "mixed").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "mixed" / "a.png")
    Image.fromarray(PIXELS[0][:3]).save(tmp_path / "mixed" / "b.png")
    with pytest.raises(BootdiffError, match=r"b\.png is 4×3"):
        load_images(str(tmp_path / "mixed"))
    (tmp_path / "cut-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 5, 6, 4) + b"short")
    with pytest.raises(BootdiffError, match="IDX"):
        load_images(str(tmp_path / "cut-idx3-ubyte"))


def test_pixels_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_pixels(to_unit(pixels)), pixels)

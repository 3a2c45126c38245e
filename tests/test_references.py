"""References: where their statistics come from, what is kept of them, and what is refused."""

import gzip
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from bootdiff.core.errors import BootdiffError
from bootdiff.data.images import image_batches, load_images
from bootdiff.data.pictures import to_unit
from bootdiff.evaluation.cache import cache_folder
from bootdiff.evaluation.references import SAMPLES, Reference, drawn, find_reference
from bootdiff.metrics.features import DigitsFeatures, PixelFeatures, load_features
from bootdiff.metrics.frechet import Statistics


class Moments:
    """Two features of images of any size; counts the images it has seen."""

    shape = None
    knows_labels = False

    def __init__(self, name: str = "moments-1") -> None:
        self.name, self.seen = name, 0

    def __call__(self, images):
        self.seen += len(images)
        return torch.stack([images.flatten(1).mean(1), images.flatten(1).amax(1)], 1)

    def read(self, images):
        return self(images), None


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("BOOTDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


@pytest.fixture
def pngs(tmp_path):
    """A folder of twelve grey images, 6×5."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (5, 6), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def write_idx(path, pixels: np.ndarray) -> str:
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *pixels.shape) + pixels.tobytes()))
    return str(path)


def save_npz(path, **more) -> str:
    np.savez(path, **{"mu": np.zeros(2), "sigma": np.eye(2), **more})
    return str(path)


# -- builtin -------------------------------------------------------------------------------------------------------


def test_the_digits_have_shipped_statistics_and_samples(cache):
    pytest.importorskip("sklearn")
    features = DigitsFeatures()
    reference = find_reference("digits", features)
    assert reference.statistics.count == 1797 and reference.samples.shape == (1797, 64)
    torch.testing.assert_close(reference.samples.double().mean(0), reference.statistics.mean, atol=1e-4, rtol=1e-4)
    assert (reference.name, reference.features, reference.warning) == ("digits", features.name, None)
    assert not cache.exists()


def test_the_digits_statistics_need_no_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    reference = find_reference("digits", DigitsFeatures())
    assert reference.samples is None and reference.statistics.count == 1797
    with pytest.raises(BootdiffError, match="needs scikit-learn"):
        find_reference("digits", PixelFeatures((1, 8, 8)))


def test_the_fashion_reference_belongs_to_the_fashion_features():
    pytest.importorskip("onnxruntime")
    features = load_features("fashion", (1, 32, 32))
    reference = find_reference("fashion", features)
    assert reference.statistics.count == 60_000 and tuple(reference.samples.shape) == (5000, 128)
    assert reference.statistics.covariance.shape == (128, 128)
    with pytest.raises(BootdiffError, match=r"made with the features fashion-8bca4fb8, not digits-526542f4"):
        find_reference("fashion", DigitsFeatures())


def test_an_unknown_reference_is_refused_with_the_nearest_name():
    with pytest.raises(BootdiffError, match=r"no reference at 'fashon'; expected .*Did you mean 'fashion'\?"):
        find_reference("fashon", Moments())


# -- files of statistics -------------------------------------------------------------------------------------------


def test_pytorch_fids_files_are_read_and_our_samples_with_them(tmp_path):
    reference = find_reference(save_npz(tmp_path / "a.npz"), Moments())
    assert torch.equal(reference.statistics.covariance, torch.eye(2).double())
    assert reference.samples is None and reference.warning is None and reference.features == "moments-1"
    many = np.random.default_rng(0).normal(size=(SAMPLES + 5, 2))
    reference = find_reference(save_npz(tmp_path / "b.npz", samples=many, features="moments-1", count=7), Moments())
    assert reference.samples.shape == (SAMPLES, 2) and reference.samples.dtype == torch.float32
    assert reference.statistics.count == 7


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"features": "other-2"}, "was made with the features other-2, not moments-1"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, "has 3 features and moments-1 2"),
        ({"mu": np.array([0, np.nan])}, "not finite"),
        ({"samples": np.full((4, 2), np.inf)}, r"samples in .* should be finite and \(n, 2\)"),
        ({"samples": np.zeros((4, 3))}, r"should be finite and \(n, 2\), got \(4, 3\)"),
        ({"samples": np.array([print])}, "samples in .* cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, more, words):
    with pytest.raises(BootdiffError, match=words):
        find_reference(save_npz(tmp_path / "a.npz", **more), Moments())


def test_too_few_images_for_the_covariance_are_remarked_on():
    def of(count: int) -> str | None:
        statistics = Statistics(torch.zeros(4).double(), torch.eye(4).double(), count)
        return Reference(statistics, None, "mine", "space-1").warning

    assert "the reference mine has 4 images for 4 features" in of(4)
    assert of(5) is None and of(0) is None


# -- images --------------------------------------------------------------------------------------------------------


def test_a_folders_statistics_are_those_of_its_images(pngs):
    reference = find_reference(str(pngs), Moments())
    values = Moments()(to_unit(load_images(str(pngs))))
    torch.testing.assert_close(reference.samples, values)
    torch.testing.assert_close(reference.statistics.mean, values.double().mean(0))
    torch.testing.assert_close(reference.statistics.covariance, values.double().T.cov())
    assert reference.statistics.count == 12 and reference.name == str(pngs)


def test_a_reference_is_computed_once(pngs, cache):
    first = find_reference(str(pngs), Moments())
    again = Moments()
    second = find_reference(str(pngs), again)
    assert again.seen == 0 and len(list(cache.glob("*.npz"))) == 1 and cache_folder() == cache
    assert torch.equal(first.samples, second.samples)
    assert torch.equal(first.statistics.covariance, second.statistics.covariance)


def test_changed_data_and_other_features_are_computed_anew(pngs, cache):
    find_reference(str(pngs), Moments())
    other = Moments("moments-2")
    assert find_reference(str(pngs), other).features == "moments-2" and other.seen == 12
    os.utime(pngs / "03.png", (1, 1))
    later = Moments()
    find_reference(str(pngs), later)
    assert later.seen == 12 and len(list(cache.glob("*.npz"))) == 3


def test_a_cache_file_that_is_damaged_or_of_other_features_is_made_anew(pngs, cache):
    find_reference(str(pngs), Moments())
    (path,) = cache.glob("*.npz")
    whole = dict(np.load(path))
    damages = [
        lambda: path.write_bytes(path.read_bytes()[:300]),
        lambda: np.savez(path, **{**whole, "features": np.array("moments-9")}),
        lambda: np.savez(path, **{**whole, "samples": whole["samples"] * np.nan}),
        lambda: np.savez(path, mu=whole["mu"], sigma=whole["sigma"]),
    ]
    for damage in damages:
        damage()
        features = Moments()
        reference = find_reference(str(pngs), features)
        assert features.seen == 12 and reference.statistics.count == 12
        assert str(np.load(path)["features"]) == "moments-1"


def test_a_cache_that_cannot_be_written_costs_only_a_remark(pngs, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOOTDIFF_CACHE", str(tmp_path / "file"))
    assert find_reference(str(pngs), Moments()).statistics.count == 12
    assert "warning: the reference is not kept for the next time" in capsys.readouterr().err


def test_a_file_of_images_is_known_by_its_content(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4), dtype=np.uint8)
    find_reference(write_idx(tmp_path / "a-idx3-ubyte.gz", pixels), Moments())
    moved, changed = Moments(), Moments()
    (tmp_path / "a-idx3-ubyte.gz").rename(tmp_path / "b-idx3-ubyte.gz")
    find_reference(str(tmp_path / "b-idx3-ubyte.gz"), moved)
    find_reference(write_idx(tmp_path / "b-idx3-ubyte.gz", pixels[::-1]), changed)
    assert moved.seen == 0 and changed.seen == 9


def test_smaller_images_are_padded_and_others_refused(pngs):
    padded = find_reference(str(pngs), PixelFeatures((1, 7, 6)))
    assert (
        padded.samples.reshape(12, 7, 6)[:, 0].eq(-1).all() and not padded.samples.reshape(12, 7, 6)[:, 1].eq(-1).all()
    )
    assert padded.warning is not None
    for shape in ((1, 5, 5), (3, 5, 6), (1, 11, 6)):
        with pytest.raises(BootdiffError, match=r"are \(1, 5, 6\), those to be measured"):
            find_reference(str(pngs), PixelFeatures(shape))


def test_features_that_are_not_finite_name_the_images(pngs):
    class Broken(Moments):
        def __call__(self, images):
            return super().__call__(images) / 0

    with pytest.raises(BootdiffError, match="broken-1 gives values that are not finite for images of"):
        find_reference(str(pngs), Broken("broken-1"))


def test_one_image_is_no_reference(tmp_path):
    with pytest.raises(BootdiffError, match="holds 1 image; a reference needs at least two"):
        find_reference(write_idx(tmp_path / "a-idx3-ubyte.gz", np.zeros((1, 4, 4), np.uint8)), Moments())


def test_at_most_ten_thousand_samples_are_drawn_the_same_every_time():
    mask = drawn(3 * SAMPLES)
    assert int(mask.sum()) == SAMPLES and torch.equal(mask, drawn(3 * SAMPLES)) and bool(drawn(7).all())
    assert 0.3 < float(mask[:SAMPLES].float().mean()) < 0.37


def test_a_folder_read_in_batches_holds_the_same_images(pngs):
    count, batches = image_batches(str(pngs), 5)
    parts = list(batches)
    assert count == 12 and [len(part) for part in parts] == [5, 5, 2]
    assert torch.equal(torch.cat(parts), load_images(str(pngs)))
    Image.new("L", (9, 9)).save(pngs / "11.png")
    Image.new("L", (9, 9)).save(pngs / "10.png")
    with pytest.raises(BootdiffError, match=r"10\.png has the shape \(1, 9, 9\) but the first image \(1, 5, 6\)"):
        list(image_batches(str(pngs), 5)[1])

"""``sample --edit-task``: what is kept of a picture, by a consistency student or its teacher; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bootdiff.methods.boot import BootSettings
from bootdiff.methods.consistency import ConsistencySettings
from tiny_unet import save_teacher

QUICK = {"steps": 2, "batch_size": 4, "watch_every": 0, "sample_every": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A consistency student and a path student of a tiny colour teacher."""
    from bootdiff.distillation.distill import distill

    folder = tmp_path_factory.mktemp("edit")
    teacher = save_teacher(folder / "teacher", channels=3)
    settings = ConsistencySettings(**QUICK, pairs=8, pair_steps=2)
    distill(str(teacher), folder / "consistency", settings, "consistency")
    distill(str(teacher), folder / "boot", BootSettings(**QUICK))
    values = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(values).save(folder / "picture.png")
    Image.fromarray((np.arange(8) > 3).astype(np.uint8)[None].repeat(8, 0) * 255).save(folder / "mask.png")
    return folder


def made(cli, runs, out, *words):
    done = cli("sample", runs / "consistency", "--image", runs / "picture.png", "--output", out, *words)
    assert done.code == 0, done.err
    return torch.from_numpy(np.load(out)["images"] if "images" in np.load(out) else np.load(out)["arr_0"]).float(), done


def picture(runs):
    return torch.from_numpy(np.array(Image.open(runs / "picture.png"))).permute(2, 0, 1).float() / 127.5 - 1


def grey(x):
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(-3)


KEPT = {
    "inpaint": lambda x: x[..., :4],
    "colourise": grey,
    "super-resolution": lambda x: torch.nn.functional.avg_pool2d(x, 2),
}


@pytest.mark.parametrize("task", KEPT)
@pytest.mark.parametrize("by", [(), ("--refine", "2")], ids=["student", "teacher"])
def test_what_a_task_keeps_is_kept_and_the_rest_is_made(cli, runs, tmp_path, task, by):
    mask = ("--mask", runs / "mask.png") if task == "inpaint" else ()
    images, _ = made(cli, runs, tmp_path / "x.npz", "--edit-task", task, *mask, *by, "--num", "3")
    kept = KEPT[task]
    assert images.shape == (3, 3, 8, 8)
    torch.testing.assert_close(kept(images), kept(picture(runs).expand(3, 3, 8, 8)), rtol=0, atol=0.02)
    assert float((images - picture(runs)).abs().mean()) > 0.02 and not torch.equal(images[0], images[1])


def test_strokes_are_asked_at_low_times_and_calls_are_told(cli, runs, tmp_path):
    low, done = made(cli, runs, tmp_path / "x.npz", "--edit-task", "strokes", "--refine-from", "0.2", "--num", "2")
    high, _ = made(cli, runs, tmp_path / "y.npz", "--edit-task", "strokes", "--refine-from", "0.9", "--num", "2")
    assert float((low - picture(runs)).abs().mean()) < float((high - picture(runs)).abs().mean())
    assert "an image, at t = " in done.out
    _, few = made(cli, runs, tmp_path / "w.npz", "--edit-task", "strokes", "--calls", "3", "--num", "2")
    assert "3 calls an image" in few.out
    _, told = made(cli, runs, tmp_path / "z.npz", "--edit-task", "colourise", "--calls", "3", "--num", "2")
    assert "3 calls an image" in told.out


@pytest.mark.parametrize(
    "words, told",
    [
        (("--edit-task", "paint", "--image", "picture.png"), "expected one of colourise, inpaint"),
        (("--edit-task", "inpaint", "--image", "picture.png"), "inpaint needs --mask FILE"),
        (("--edit-task", "colourise"), "needs a picture; give --image FILE"),
        (
            ("--edit-task", "colourise", "--image", "picture.png", "--mask", "mask.png"),
            "--mask is of --edit-task inpaint",
        ),
        (("--edit-task", "colourise", "--image", "picture.png", "--factor", "2"), "--factor is of --edit-task super"),
        (("--factor", "2"), "name the task, too"),
        (("--edit-task", "strokes", "--image", "picture.png", "--refine-from", "1.5"), "expected a time above"),
        (
            ("--edit-task", "strokes", "--image", "picture.png", "--refine-from", "0.5", "--times", "0.4"),
            "--times does, too; give one",
        ),
        (("--edit-task", "super-resolution", "--image", "picture.png", "--factor", "3"), "that divides the sides"),
        (("--edit-task", "colourise", "--image", "picture.png", "--edit", "a cat"), "give --refine STEPS, too"),
        (("--edit-task", "colourise", "--image", "nothing.png"), "nothing.png"),
    ],
)
def test_what_does_not_fit_is_one_line(cli, runs, tmp_path, words, told):
    words = [str(runs / word) if word.endswith(".png") else word for word in words]
    done = cli("sample", runs / "consistency", "--output", tmp_path / "x.png", *words)
    assert done.code == 2 and told in done.err and len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


def test_another_kind_of_student_needs_its_teacher_for_that(cli, runs, tmp_path):
    words = ("--edit-task", "colourise", "--image", runs / "picture.png", "--output", tmp_path / "x.png")
    done = cli("sample", runs / "boot", *words)
    assert done.code == 2 and "is a path student; its teacher can do the task after it: give --refine" in done.err
    assert cli("sample", runs / "boot", *words, "--refine", "2").code == 0

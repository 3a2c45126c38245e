"""Distillations from stored pairs, trajectories and images: made ahead, killed, resumed; and who may have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bootdiff.config.settings import make_settings
from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted
from bootdiff.data import shards as shards_module
from bootdiff.data.shards import Shards
from bootdiff.data.sources import Images
from bootdiff.distillation.distill import distill
from bootdiff.distillation.plan import plan_distillation
from bootdiff.methods.boot import BootSettings
from bootdiff.methods.registry import METHODS, find_method
from bootdiff.samplers.rows import reference_path
from bootdiff.teachers import limited, load_teacher
from toy_direct import PLACE, ToySettings
from toys import same

WEIGHTS = Path("student-path/unet/diffusion_pytorch_model.safetensors")
OPTIONS = ["--method", "toy", "--steps", "6", "--batch-size", "8", "--set", "learning_rate=1e-3"]
OPTIONS += ["--set", "checkpoint_every=2", "--set", "sample_every=0", "--set", "log_every=1", "--set", "ema_decay=0.9"]
OPTIONS += ["--set", "pair_steps=3", "--set", "watch_every=0"]
#: the command line, which knows the toy, makes small shards, and says a line whenever a shard is there
TELLING = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bootdiff.cli.main import run
from bootdiff.data import shards
from bootdiff.methods.registry import METHODS

METHODS["toy"], shards.MOST_SAMPLES = {PLACE!r}, 16
write = shards.Shards.write

def tell(self, shard, values):
    write(self, shard, values)
    print("shard", shard, flush=True)

shards.Shards.write = tell
run()
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch) -> None:
    monkeypatch.setitem(METHODS, "toy", PLACE)
    monkeypatch.setattr(shards_module, "MOST_SAMPLES", 16)


def settings(**fields) -> ToySettings:
    base = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "checkpoint_every": 2, "sample_every": 0}
    return ToySettings(**{**base, "log_every": 1, "ema_decay": 0.9, "pair_steps": 3, "watch_every": 0, **fields})


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "toy", PLACE)
        patch.setattr(shards_module, "MOST_SAMPLES", 16)
        distill(str(tiny), run, settings(), "toy")
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / WEIGHTS)


def shards(run: Path, kind: str = "pairs") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / kind).glob("*.safetensors"))}


def test_a_run_stores_no_more_than_its_steps_read(tiny, undisturbed):
    assert [len(load_file(path)["data"]) for path in sorted((undisturbed / "pairs").glob("*.safetensors"))] == [16] * 3
    asked = yaml.safe_load((undisturbed / "config.yaml").read_text())["settings"]
    assert asked["source"] == "pairs" and asked["pairs"] == 48
    made = json.loads((undisturbed / "pairs/manifest.json").read_text())
    assert made["made"]["solver"] == "heun" and len(made["made"]["times"]) == 4 and made["made"]["hashes"]["teacher"]


def test_pairs_are_the_paths_of_the_limited_teacher(tiny, undisturbed):
    from bootdiff.core.randomness import sample_noise, stored_seed

    teacher = load_teacher(str(tiny))
    path = reference_path(limited(teacher, teacher.limit), *teacher.t_range, steps=3)
    with torch.no_grad():
        ends = path(sample_noise(stored_seed(0), 0, 16, teacher.shape), Condition())
    torch.testing.assert_close(load_file(undisturbed / "pairs/00000.safetensors")["data"], ends, atol=1e-5, rtol=0)


def test_a_run_on_pairs_is_free_of_data_and_says_so(undisturbed):
    assert json.loads((undisturbed / "done.json").read_text())["data_free"] is True
    for place in ("student", "student-path"):
        assert json.loads((undisturbed / place / "bootdiff.json").read_text())["data_free"] is True
    assert "without training data" in (undisturbed / "student/README.md").read_text()


@pytest.mark.parametrize("shard", [0, 1])
def test_a_run_killed_while_it_makes_pairs_ends_as_an_undisturbed_one(tiny, tmp_path, undisturbed, shard):
    """kill -9 within the making of the next shard; one that is there is not made again."""
    run = tmp_path / "killed"
    words = [sys.executable, "-c", TELLING, "distill", str(tiny), "--output", str(run), *OPTIONS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        seen = iter(process.stdout.readline, f"shard {shard}\n")  # each waits for a line; "" is the end
        assert "" not in seen, "the run ended before its shard"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    times = {path.name: path.stat().st_mtime_ns for path in (run / "pairs").glob("*.safetensors")}
    assert f"{shard:05d}.safetensors" in times
    distill(str(tiny), run, settings(), "toy")
    assert same(weights(run), weights(undisturbed)) and shards(run) == shards(undisturbed)
    assert times.items() <= {path.name: path.stat().st_mtime_ns for path in (run / "pairs").iterdir()}.items()


def test_ctrl_c_while_pairs_are_made_saves_what_was_learned(tiny, tmp_path, undisturbed, monkeypatch):
    run, write = tmp_path / "interrupted", Shards.write

    def press(self, shard, values):
        if shard == 2:
            os.kill(os.getpid(), signal.SIGINT)
        write(self, shard, values)

    monkeypatch.setattr(Shards, "write", press)
    with pytest.raises(Interrupted, match="stopped while pairs were made; those in"):
        distill(str(tiny), run, settings(checkpoint_every=100), "toy")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000004"]
    assert len(shards(run)) == 2
    monkeypatch.setattr(Shards, "write", write)
    distill(str(tiny), run, settings(checkpoint_every=100), "toy")
    assert same(weights(run), weights(undisturbed)) and shards(run) == shards(undisturbed)


@pytest.mark.multi
def test_two_processes_make_the_same_shards(tiny, tmp_path, undisturbed):
    code = tmp_path / "telling.py"
    code.write_text(TELLING)
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(code)]
    done = subprocess.run(
        [*several, "distill", str(tiny), "--output", str(tmp_path / "two"), *OPTIONS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert shards(tmp_path / "two") == shards(undisturbed)
    for name, value in weights(undisturbed).items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, atol=1e-4, rtol=0)


def test_trajectories_are_stored_with_their_states(tiny, tmp_path):
    distill(str(tiny), tmp_path / "run", settings(steps=2, source="trajectories", trajectory_times=3, pairs=9), "toy")
    kept = load_file(tmp_path / "run/trajectories/00000.safetensors")["states"]
    assert kept.shape == (9, 3, 1, 8, 8)


def test_images_are_no_free_lunch(cli, tiny, tmp_path):
    """One image read, and card, model card, done.json, table and report say so; so do those of who goes on from it."""
    run = tmp_path / "run"
    words = ["--source", "images", "--images", "digits", "--set", "watch_every=0"]
    done = cli("distill", tiny, "--output", run, *OPTIONS[:6], *words)
    assert done.code == 0, done.err
    assert json.loads((run / "done.json").read_text())["data_free"] is False
    for place in ("student", "student-path"):
        assert json.loads((run / place / "bootdiff.json").read_text())["data_free"] is False
    card = (run / "student/README.md").read_text()
    assert "not free of data" in card and "noise alone" not in card
    assert "Not free of data: run read images" in (run / "report.html").read_text()
    assert json.loads((run / "meta.json").read_text())["sources"]["data"]
    done = cli("evaluate", run, "--output", tmp_path / "table.json", "--num", "4", "--calls", "1")
    assert done.code == 0 and "student (learned from images)" in done.out, done.err
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row.get("data_free") for row in rows] == [None] * (len(rows) - 1) + [False]
    again = tmp_path / "again"
    distill(str(tiny), again, BootSettings(steps=1, batch_size=4, sample_every=0, start=str(run)))
    assert json.loads((again / "done.json").read_text())["data_free"] is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--source", "pairs"], "method boot learns from noise, not from pairs; leave --source out"),
        (["--images", "digits"], "method boot learns from noise, not from images; leave --images out"),
        (["--method", "toy", "--source", "noise", "--set", "pairs=4"], "method toy learns from pairs or trajectories"),
        (["--set", "source=trajectories"], "method boot learns from noise, not from trajectories"),
        (
            ["--method", "boot+dm", "--source", "images"],
            "the last stage of boot+dm learns from noise or pairs, not from images",
        ),
        (["--method", "toy", "--source", "noise"], "method toy learns from pairs or trajectories or images, not from"),
        (["--method", "toy", "--source", "shards"], "setting source: input should be 'noise', 'pairs'"),
        (
            ["--method", "toy", "--source", "images"],
            "images are to be learned from, and none are named: --images digits",
        ),
        (["--method", "toy", "--source", "pairs", "--images", "digits"], "images has no effect with --source pairs"),
        (["--method", "toy", "--images", "digits", "--set", "pairs=4"], "pairs has no effect with --source images"),
        (["--method", "toy", "--images", "nowhere"], "no data set at 'nowhere'"),
        (["--method", "toy", "--images", "hf:no/such"], "the data set no/such is not in the hub's cache and could"),
        (["--method", "toy", "--images", "hf:a b"], "expected hf:NAME, with a data set's id on the hub"),
        (["--method", "toy", "--set", "pairs=0"], "setting pairs: input should be greater than or equal to 1"),
    ],
)
def test_what_a_method_cannot_learn_from_is_refused_in_one_line(cli, tiny, tmp_path, words, told):
    done = cli("distill", tiny, "--output", tmp_path / "run", *words)
    assert done.code == 2 and done.err.count("\n") == 1, done.err
    assert told in done.err, done.err
    assert not (tmp_path / "run").exists()


def test_noise_may_be_asked_of_a_method_that_takes_it(cli, tiny, tmp_path):
    done = cli("distill", tiny, "--output", tmp_path / "run", "--source", "noise", "--dry-run")
    assert done.code == 0 and "source: noise alone" in done.out, done.err


def test_a_dry_run_says_how_many_pairs_are_made(cli, tiny, tmp_path):
    done = cli("distill", tiny, "--output", tmp_path / "run", *OPTIONS, "--set", "pairs=20", "--dry-run")
    assert "source: 20 pairs, made by the teacher on the way, 3 heun steps each" in done.out, done.err
    more = make_settings(find_method("toy").settings, {"steps": 2, "batch_size": 3, "source": "pairs", "pairs": 50})
    assert more.stored == 6 and ToySettings(steps=10_000).stored == 50_000
    assert more.making == 6 * 101


def test_another_data_set_is_another_run(tiny, tmp_path):
    from PIL import Image

    for folder, colour in (("a", 10), ("b", 10), ("c", 90)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.new("L", (8, 8), colour + number).save(tmp_path / folder / f"{number}.png")
    run = tmp_path / "run"
    asked = settings(steps=1, batch_size=2, source="images", images=str(tmp_path / "a"))
    distill(str(tiny), run, asked, "toy")
    same = settings(steps=1, batch_size=2, source="images", images=str(tmp_path / "b"))
    plan_distillation(str(tiny), run, same, "toy")
    with pytest.raises(BootdiffError, match="holds another run"):
        other = settings(steps=1, batch_size=2, source="images", images=str(tmp_path / "c"))
        plan_distillation(str(tiny), run, other, "toy")


@pytest.mark.parametrize(
    ("size", "mode", "told"),
    [
        ((16, 16), "L", "are 16×16 and those of .* 8×8; resize them with --set resize=8"),
        ((8, 8), "RGB", "have 3 channels and those of .* 1; convert them"),
    ],
)
def test_images_that_do_not_fit_the_teacher_are_refused(tiny, tmp_path, size, mode, told):
    from PIL import Image

    (tmp_path / "data").mkdir()
    Image.new(mode, size).save(tmp_path / "data/one.png")
    with pytest.raises(BootdiffError, match=told):
        plan_distillation(str(tiny), tmp_path / "run", settings(source="images", images=str(tmp_path / "data")), "toy")


def test_small_images_are_padded_and_large_ones_resized(tmp_path, tiny, capsys):
    from PIL import Image

    for side in (4, 16):
        (tmp_path / f"{side}").mkdir()
        Image.new("L", (side, side), 200).save(tmp_path / f"{side}" / "one.png")
    asked = settings(batch_size=1, source="images", images=str(tmp_path / "4"))
    pixels = plan_distillation(str(tiny), tmp_path / "run", asked, "toy").source.data.pixels
    assert pixels.shape == (1, 1, 8, 8) and pixels[0, 0, 2:6, 2:6].min() == 200 and pixels.sum() == 16 * 200
    assert "are padded with black to 8×8" in capsys.readouterr().err
    asked = settings(batch_size=1, source="images", images=str(tmp_path / "16"), resize=8)
    assert plan_distillation(str(tiny), tmp_path / "run", asked, "toy").source.data.pixels.shape == (1, 1, 8, 8)


def test_a_class_teacher_is_told_the_images_labels(tmp_path):
    from PIL import Image

    from bootdiff.core.randomness import Draw
    from tiny_pipelines import save_class_unet

    teacher = save_class_unet(tmp_path / "teacher")
    for label in range(3):
        (tmp_path / f"data/{label}").mkdir(parents=True)
        Image.new("RGB", (8, 8), (label,) * 3).save(tmp_path / f"data/{label}/one.png")
    asked = settings(batch_size=2, source="images", images=str(tmp_path / "data"), classes=[0, 2])
    plan = plan_distillation(str(teacher), tmp_path / "run", asked, "toy")
    material = plan.asked.make(tmp_path / "run", "cpu")
    source = plan.source.make(material, tmp_path / "run", "cpu", plan.sources)
    batch = source.batch(Draw(0, 0, "student", 0, 8, 8))
    assert set(batch.condition["classes"].tolist()) == {0, 2}
    shown = ((batch.data[:, 0, 0, 0] + 1) * 127.5).round().long()
    assert torch.equal(shown, batch.condition["classes"])
    with pytest.raises(BootdiffError, match="has no image of the classes 3"):
        plan_distillation(str(teacher), tmp_path / "run", settings(**{**vars_of(asked), "classes": [3]}), "toy")


def vars_of(asked: ToySettings) -> dict:
    return {"source": asked.source, "images": asked.images}


def test_a_text_teacher_on_latents_is_told_captions_and_encodes_once(tmp_path, monkeypatch):
    from PIL import Image

    from tiny_pipelines import save_sd

    teacher, data = save_sd(tmp_path / "teacher"), tmp_path / "data"
    data.mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (number * 60, 9, 9)).save(data / f"{number}.png")
    lines = [{"file_name": f"{number}.png", "text": f"a {number}"} for number in range(3)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = tmp_path / "run"
    asked = settings(steps=2, batch_size=2, source="images", images=str(data))
    seen: list[Images] = []
    batch = Images.batch
    monkeypatch.setattr(Images, "batch", lambda self, draw: seen.append(batch(self, draw)) or seen[-1])
    distill(str(teacher), run, asked, "toy")
    assert seen[0].data.shape == (2, *load_teacher(str(teacher)).shape) and "text" in seen[0].condition
    kept = load_file(run / "latents/00000.safetensors")["data"]
    assert kept.shape[0] == 3 and bool(torch.isfinite(kept).all())
    assert json.loads((run / "prompts.json").read_text()) == ["a 0", "a 1", "a 2"]


def test_a_data_set_of_the_hubs_cache_is_read_by_both_commands(cli, tiny, tmp_path, monkeypatch):
    import io

    import pyarrow.parquet
    from huggingface_hub import constants
    from PIL import Image

    from bootdiff.data.images import load_images

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/datasets--me--dots"
    folder = repository / "snapshots" / commit / "data"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    cells = []
    for number in range(5):
        held = io.BytesIO()
        Image.new("L", (8, 8), number).save(held, "PNG")
        cells.append({"bytes": held.getvalue(), "path": None})
    table = pyarrow.table({"image": cells})
    pyarrow.parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    Image.new("RGB", (300, 200)).save(folder / "example.png")  # of its page
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load_images("hf:me/dots")[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    words = ["--steps", "1", "--batch-size", "2", "--set", "channels=[8,16]", "--set", "sample_every=0"]
    done = cli("train-teacher", "hf:me/dots", "--output", tmp_path / "teacher", *words)
    assert done.code == 0, done.err
    distill(str(tiny), tmp_path / "run", settings(steps=1, batch_size=2, source="images", images="hf:me/dots"), "toy")
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")  # the other is missing
    with pytest.raises(BootdiffError, match="only some of the files of the data set me/dots are in the hub's cache"):
        load_images("hf:me/dots")

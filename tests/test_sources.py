"""What a batch holds: stored pairs and trajectories, made ahead and whole; images; and what the plan says of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bootdiff.core.condition import Condition
from bootdiff.core.errors import BootdiffError, Interrupted, NonFiniteLossError
from bootdiff.core.randomness import Draw, noises_of, sample_noise, stored_seed
from bootdiff.data import shards as shards_module
from bootdiff.data.conditions import Classes, Unconditional, Weighted, numbered
from bootdiff.data.shards import Manifest, Shards
from bootdiff.data.sources import Pairs, Trajectories
from bootdiff.distillation.pairs import PathSolver, path_times
from bootdiff.samplers.rows import reference_path
from bootdiff.solvers import Heun
from bootdiff.system.signals import Asked
from bootdiff.teachers.analytic import Gaussian
from killing import killed_before

SHAPE = (2, 3)
#: three shards of 16 samples, the last one of 8
COUNT = 40


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(shards_module, "MOST_SAMPLES", 16)


def solver(times: int = 1, steps: int = 20) -> PathSolver:
    falling, every = path_times(steps, times, 0.02, 0.95)
    return PathSolver(Gaussian(shape=SHAPE), Heun(), falling, every, "cpu")


def pairs(folder: Path, count: int = COUNT, solve=None, **made) -> Pairs:
    manifest = Manifest("pairs", count, SHAPE, {"data": SHAPE}, made)
    return Pairs(Shards(folder, manifest), solve or solver(), seed=5, at_once=7)


def draw(step: int, size: int = 10, start: int = 0, stop: int | None = None) -> Draw:
    return Draw(3, step, "student", start, size if stop is None else stop, size)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def numbers_of(noise: torch.Tensor, count: int = COUNT) -> list[int]:
    """The numbers of the samples that have these noises."""
    known = sample_noise(5, 0, count, SHAPE)
    return [int((known == one).flatten(1).all(1).nonzero()) for one in noise]


def test_pairs_are_the_ends_of_the_teachers_exact_path(tmp_path):
    teacher = Gaussian(shape=SHAPE)
    source = pairs(tmp_path, solve=solver(steps=400))
    source.ahead(0, 10)
    batch = source.batch(draw(0))
    solved = reference_path(teacher, 0.02, 0.95, steps=400)(batch.noise, Condition())
    torch.testing.assert_close(batch.data, solved, atol=1e-5, rtol=0)
    exact = teacher.path(batch.noise, torch.full((10,), 0.02), 0.95)
    torch.testing.assert_close(batch.data.double(), exact, atol=1e-4, rtol=0)  # what Heun's 400 steps leave
    assert torch.equal(batch.noise, sample_noise(5, 0, 10, SHAPE))


def test_trajectories_are_the_states_of_that_path(tmp_path):
    teacher, solve = Gaussian(shape=SHAPE), solver(times=5, steps=399)
    assert len(solve.times) == 401, "as many steps as every kept state needs"
    manifest = Manifest("trajectories", COUNT, SHAPE, {"states": (5, *SHAPE)}, {})
    source = Trajectories(Shards(tmp_path, manifest), solve, 5, 7, Unconditional(), solve.kept)
    source.ahead(1, 10)
    batch = source.batch(draw(1))
    torch.testing.assert_close(batch.times, torch.linspace(0.95, 0.02, 5))
    assert batch.states.shape == (10, 5, *SHAPE) and torch.equal(batch.data, batch.states[:, -1])
    for place, time in enumerate(solve.kept):
        exact = teacher.path(batch.noise, torch.full((10,), time), 0.95)
        torch.testing.assert_close(batch.states[:, place].double(), exact, atol=1e-4, rtol=0)


def test_the_first_epoch_is_in_order_and_each_later_one_a_permutation(tmp_path):
    source = pairs(tmp_path)
    seen = []
    for step in range(12):
        source.ahead(step, 10)
        seen += numbers_of(source.batch(draw(step)).noise)
    epochs = [seen[start : start + COUNT] for start in range(0, 120, COUNT)]
    assert epochs[0] == list(range(COUNT))
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[1] != epochs[0] and epochs[1] != epochs[2]


def test_a_batch_does_not_depend_on_how_it_is_split(tmp_path):
    source = pairs(tmp_path)
    for step in (0, 3, 7):  # within an epoch, at its end, in a later one
        source.ahead(step, 12)
        whole = source.batch(draw(step, 12))
        parts = [source.batch(draw(step, 12, start, start + 4)) for start in (0, 4, 8)]
        assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)
        assert torch.equal(torch.cat([part.data for part in parts]), whole.data)


def test_a_shard_is_made_for_the_step_that_needs_it_and_not_before(tmp_path):
    source = pairs(tmp_path)
    for step, there in ((0, 1), (1, 2), (2, 2), (3, 3), (4, 3)):
        source.ahead(step, 10)
        assert len(list(tmp_path.glob("*.safetensors"))) == there, step
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["samples"] == [0, COUNT] and manifest["shard"] == 16 and manifest["entries"] == {"data": [2, 3]}
    assert [len(load_file(path)["data"]) for path in sorted(tmp_path.glob("*.safetensors"))] == [16, 16, 8]


def test_nothing_is_asked_again_of_a_folder_that_is_whole(tmp_path):
    source = pairs(tmp_path)
    source.ahead(4, 10)
    before = everything(tmp_path)

    class Never(PathSolver):
        def __call__(self, noise, condition):
            pytest.fail("a shard that is there is made again")

    again = pairs(tmp_path, solve=Never(**vars(solver())))
    again.ahead(4, 10)
    assert torch.equal(again.batch(draw(4)).data, source.batch(draw(4)).data)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "wrong",
    ["truncated", "empty", "words", "foreign", "unnamed", "shape", "type", "nan", "zeros", "bit", "old", "range"],
)
def test_a_shard_that_is_damaged_or_foreign_is_named_and_made_again(tmp_path, capsys, wrong):
    from bootdiff.system import notes

    notes.begin()
    folder = tmp_path / "pairs"
    pairs(folder).ahead(4, 10)
    before, path = everything(folder), folder / "00001.safetensors"
    with safe_open(path, "pt") as file:
        words = file.metadata()
    values = load_file(path)["data"].clone()
    if wrong in ("truncated", "empty", "words"):
        path.write_bytes({"truncated": path.read_bytes()[:-9], "empty": b"", "words": b"no tensors"}[wrong])
    elif wrong == "foreign":
        pairs(tmp_path / "other", solver="euler").ahead(4, 10)
        path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    elif wrong == "bit":
        path.write_bytes(path.read_bytes()[:-9] + bytes([path.read_bytes()[-9] ^ 1]) + path.read_bytes()[-8:])
    elif wrong == "old":  # as an earlier version wrote them, without the values' hash
        save_file({"data": values}, path, {"held": words["held"].rpartition(" ")[0]})
    elif wrong == "unnamed":
        save_file({"data": values}, path)
    elif wrong == "range":
        path.write_bytes((folder / "00000.safetensors").read_bytes())
    else:
        changed = {
            "shape": values[:, :1].clone(),
            "type": values.double(),
            "nan": values * float("nan"),
            "zeros": 0 * values,
        }
        save_file({"data": changed[wrong]}, path, words)
    pairs(folder).ahead(4, 10)
    err = capsys.readouterr().err
    assert f"{path}: it" in err and "made again" in err and err.count("note:") == 1, err
    assert everything(folder) == before


def test_a_torch_that_draws_other_noises_makes_other_samples(tmp_path):
    """Their hash is in what a shard is known by."""
    from bootdiff.data.sources.stored import noises_hash

    assert noises_hash(5, SHAPE) == noises_hash(5, SHAPE) != noises_hash(6, SHAPE)
    one, other = (Manifest("pairs", COUNT, SHAPE, {"data": SHAPE}, {"noises": noises_hash(s, SHAPE)}) for s in (5, 6))
    assert one.digest != other.digest
    more = Manifest("pairs", 2 * COUNT, SHAPE, {"data": SHAPE}, {"noises": noises_hash(5, SHAPE)})
    assert one.digest == more.digest, "a sample does not depend on how many there are"


def test_samples_that_are_not_finite_stop_the_making(tmp_path):
    class Broken(PathSolver):
        def __call__(self, noise, condition):
            return {"data": noise / 0}

    with pytest.raises(NonFiniteLossError, match="the pairs 0 to 15 hold values that are not finite; load"):
        pairs(tmp_path, solve=Broken(**vars(solver()))).ahead(0, 10)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_kill_at_any_moment_leaves_whole_shards_and_the_same_end(tmp_path):
    pairs(tmp_path / "whole").ahead(4, 10)
    expected, change, kills = everything(tmp_path / "whole"), 1, 0
    while killed_before(change, lambda: pairs(tmp_path / "killed").ahead(4, 10), tmp_path / "killed"):
        change, kills = change + 1, kills + 1
        assert kills < 60
    assert kills > 5
    pairs(tmp_path / "killed").ahead(4, 10)
    assert everything(tmp_path / "killed") == expected


def test_ctrl_c_ends_the_making_and_the_next_call_goes_on_at_the_next_shard(tmp_path):
    pairs(tmp_path / "whole").ahead(4, 10)
    asked = []

    class Pressing(PathSolver):
        def __call__(self, noise, condition):
            asked.append(noise)
            if len(asked) == 5:  # of three calls a shard: within the second
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(noise, condition)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"stopped while pairs were made; those in .* stay"):
        pairs(tmp_path / "run", solve=Pressing(**vars(solver()))).ahead(4, 10)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["00000.safetensors", "manifest.json"]
    asked.clear()

    class Counting(Pressing):
        def __call__(self, noise, condition):
            asked.append(noise)
            return PathSolver.__call__(self, noise, condition)

    pairs(tmp_path / "run", solve=Counting(**vars(solver()))).ahead(4, 10)
    assert len(asked) == 5 and everything(tmp_path / "run") == everything(tmp_path / "whole")


def test_a_process_that_does_not_see_the_others_shards_is_told(tmp_path, monkeypatch):
    others = [True, False]  # the other one lacks shards, after nobody has asked to end
    monkeypatch.setattr("bootdiff.data.making.gathered", lambda value: [value, others.pop()])
    with pytest.raises(BootdiffError, match=r"process 1 does not see all pairs in .*; expected an --output"):
        pairs(tmp_path).ahead(0, 10)


def test_if_another_process_is_asked_to_end_all_do(tmp_path, monkeypatch):
    monkeypatch.setattr("bootdiff.data.making.gathered", lambda value: [value, True])
    with pytest.raises(Interrupted, match="stopped while pairs were made"):
        pairs(tmp_path).ahead(4, 10)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00000.safetensors", "manifest.json"]


def test_a_signal_waits_for_what_must_not_break_off():
    with Asked().listening() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.to_end
        asked.unless_asked(lambda: pytest.fail("begun although the end was asked for"))
    with pytest.raises(KeyboardInterrupt):  # a press of Ctrl-C that somebody else has heard
        Asked().unless_asked(lambda: signal.default_int_handler(2, None))


def test_conditions_are_those_of_the_samples_numbers(tmp_path):
    class Telling(PathSolver):
        def __call__(self, noise, condition):
            return {"data": noise + condition["classes"].view(-1, 1, 1)}

    source = pairs(tmp_path, solve=Telling(**vars(solver())))
    source.conditions = Classes([0, 3, 7])
    for step in (0, 5):
        source.ahead(step, 10)
        batch = source.batch(draw(step))
        numbers = numbers_of(batch.noise)
        assert batch.condition["classes"].tolist() == [(0, 3, 7)[number % 3] for number in numbers]
        torch.testing.assert_close(
            batch.data - batch.noise, batch.condition["classes"].view(-1, 1, 1).expand(10, 2, 3) * 1.0
        )


def test_a_range_of_weights_gives_each_stored_sample_its_own():
    conditions = Weighted(Classes([1]), 1.0, 5.0, None)
    listed = conditions.listed(2, 3, 40)["guidance"]
    assert listed.min() >= 1 and listed.max() <= 5 and len(listed.unique()) == 37
    assert torch.equal(numbered(conditions, 2, [20, 3])["guidance"], listed[[17, 0]])
    assert Weighted(Classes([1]), 1.0, 5.0, 2.0).listed(2, 3, 5)["guidance"].tolist() == [2.0, 2.0]


def test_anyones_conditions_are_listed_one_by_one():
    class Own:
        def draw(self, draw):
            return Condition()

        def listed(self, seed, start, stop):
            return Condition({"number": torch.arange(start, stop)})

        def modules(self):
            return ()

    assert numbered(Own(), 0, [4, 2, 9])["number"].tolist() == [4, 2, 9]


def test_noises_of_numbers_are_those_of_the_sampling_run():
    assert torch.equal(noises_of(7, [4, 1], (3,)), sample_noise(7, 0, 5, (3,))[[4, 1]])
    assert all(2**31 <= stored_seed(seed) < 2**31 + 2**29 for seed in range(50))


def test_a_shard_of_large_samples_holds_few():
    assert Manifest("pairs", 50_000, (1, 8, 8), {"data": (1, 8, 8)}).size == 16  # as these tests have it
    assert Manifest("pairs", 50_000, (4, 64, 64), {"data": (4, 64, 64)}).size == 16
    assert Manifest("trajectories", 9, (3, 512, 512), {"states": (8, 3, 512, 512)}).size == 2

"""The search for the times of a consistency student's calls."""

from __future__ import annotations

import json

import pytest

from bootdiff import BootdiffError
from bootdiff.evaluation.time_search import search_times
from bootdiff.methods.registry import find_method

POSSIBLE = [1 - k / 200 for k in range(200)]


def test_the_least_of_a_function_with_one_minimum_is_found_with_few_looks():
    found = search_times(lambda times: 1.0 if len(times) == 1 else (times[-1] - 0.42) ** 2, POSSIBLE, 2)
    assert found.times[0] == 1.0 and abs(found.times[1] - 0.42) < 0.02
    assert found.single == (True,) and len(found.tried) < 30
    assert found.distance == min(found.tried.values())


def test_times_are_searched_one_after_the_other_and_fall():
    aims = {2: 0.7, 3: 0.2, 4: 0.1}
    found = search_times(lambda times: abs(times[-1] - aims.get(len(times), 1.0)), POSSIBLE, 4)
    assert all(abs(time - aims[number]) < 0.02 for number, time in enumerate(found.times[1:], start=2))
    assert list(found.times) == sorted(found.times, reverse=True) and found.single == (True, True, True)


def test_a_second_minimum_is_noticed_and_the_lowest_look_is_taken():
    def two(times):
        t = times[-1]
        return min((t - 0.8) ** 2 + 0.1, (t - 0.1) ** 2) if len(times) > 1 else 1.0

    found = search_times(two, POSSIBLE, 2)
    assert found.single == (False,)
    assert found.distance == min(distance for times, distance in found.tried.items() if len(times) == 2)


def test_times_are_left_for_every_call():
    found = search_times(lambda times: times[-1], [0.9, 0.5, 0.2, 0.1], 4)  # the lower the better
    assert found.times == (0.9, 0.5, 0.2, 0.1)
    with pytest.raises(BootdiffError, match="5 calls are more than the 4 times"):
        search_times(lambda times: 0.0, [0.9, 0.5, 0.2, 0.1], 5)


@pytest.mark.slow
def test_evaluate_searches_and_sample_takes_what_was_found(tmp_path, cli):
    from bootdiff import distill

    words = {"steps": 2, "batch_size": 4, "pairs": 4, "pair_steps": 2, "watch_every": 0, "grid": 5}
    run = tmp_path / "run"
    distill("digits", run, find_method("consistency").settings(**words), "consistency")
    base = ("evaluate", run, "--output", tmp_path / "e.json", "--num", "80", "--calls", "1", "--no-heun")
    done = cli(*base, "--search-times", "2")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "e.json").read_text())
    search = result["time_search"]
    assert search["calls"] == 2 and len(search["times"]) == 2 and search["num"] == 80
    row = next(row for row in result["rows"] if row["spacing"] == "searched")
    assert (row["steps"], row["calls"], row["kind"]) == (2, 2, "student")
    assert f"--times {','.join(f'{t:.6g}' for t in search['times'])}" in done.out
    times = ",".join(str(t) for t in search["times"])
    drawn = cli("sample", run, "--output", tmp_path / "grid.png", "--num", "2", "--times", times)
    assert drawn.code == 0, drawn.err
    wrong = cli("sample", run, "--output", tmp_path / "grid.png", "--times", "0.2,0.9")
    assert wrong.code == 2 and "\n" not in wrong.err.strip()
    none = cli("evaluate", "digits", "--output", tmp_path / "t.json", "--search-times", "2")
    assert none.code == 2 and "mean nothing to it" in none.err

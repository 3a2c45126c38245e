"""What the README shows is true: its Python runs, and its commands and options exist."""

import re
import shutil
from pathlib import Path

import numpy as np
import torch

from tiny_unet import save_teacher

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(tmp_path, monkeypatch):
    """As printed, but for the number of steps; then the stock pipeline's example on what it left."""
    monkeypatch.chdir(tmp_path)
    stock, ours, classes, functions = PYTHON
    names: dict = {}
    exec(ours.replace("steps=200", "steps=2"), names)
    assert names["images"].shape == (16, 1, 8, 8) and names["halfway"].shape == (16, 1, 8, 8)
    exec(classes.replace("steps=200", "steps=2"), names)
    assert names["threes"].shape == (16, 1, 8, 8)
    assert names["fast"](names["noise"], names["condition"]).shape == (16, 1, 8, 8)
    assert Path("runs/classes-w2/model_index.json").exists()
    exec(stock.replace("runs/quickstart/student", "runs/first/student"), names)
    assert names["image"].size == (8, 8)
    shutil.copytree("runs/first", "runs/other")
    exec(functions.replace("num=2000, repeats=3", "num=16, calls=(1,), heun=False"), names)
    assert names["samples"].images.shape == (16, 1, 8, 8) and names["figures"]["rows"] and names["table"]["rows"]
    assert names["page"] == Path("runs/first/report.html") and names["page"].exists()
    pixels = torch.from_numpy(np.array(names["image"], np.float32)) / 127.5 - 1
    torch.testing.assert_close(pixels, names["images"][0, 0], rtol=0, atol=0.5 / 127.5 + 1e-5)


def test_the_commented_teacher_line_works_too(tmp_path):
    line = re.search(r"# (teacher = bootdiff\.CallableTeacher.*)", PYTHON[1])
    assert line
    import bootdiff

    names = {"bootdiff": bootdiff, "my_module": torch.nn.Conv2d(3, 3, 1)}
    exec(line.group(1), names)
    assert names["teacher"].shape == (3, 32, 32)


def test_the_commands_exist(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for command in set(re.findall(r"bootdiff ([a-z-]+)", README)) - {"opens"}:
        words = cli(command, "--help")
        assert words.code == 0, command
        line = "\n".join(part for part in README.splitlines() if f"bootdiff {command}" in part)
        for option in re.findall(r"(--[a-z-]+)", line):
            known = words.out + "--help --nproc_per_node --method"
            assert option in known or option in ("--nproc", "--report-to"), (command, option)


def test_inspect_costs_grow_with_the_model(cli, tmp_path):
    import json

    small = json.loads(cli("inspect", save_teacher(tmp_path / "a"), "--json").out)
    wide = {"block_out_channels": (16, 32)}
    large = json.loads(cli("inspect", save_teacher(tmp_path / "b", unet=wide), "--json").out)
    assert large["memory_gib"] > small["memory_gib"] and large["parameters"] > small["parameters"]

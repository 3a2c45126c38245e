"""Which slow tests a change touches: by imports, through packages and helpers, and nothing where nothing is reached."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from affected import EVERYTHING, ROOT, affected, changed_files, imports_of, modules_of

SLOW = "import pytest\n\n@pytest.mark.slow\ndef test_it({}): ...\n"
FILES = {
    "src/bootdiff/__init__.py": "_PUBLIC = {'distill': 'bootdiff.training'}\n",
    "src/bootdiff/alone.py": "",
    "src/bootdiff/deep.py": "",
    "src/bootdiff/named.py": "",
    "src/bootdiff/builtin/__init__.py": "",
    "src/bootdiff/builtin/weights.bin": "",
    "src/bootdiff/training/__init__.py": "def go():\n    from bootdiff import deep\n",
    "src/bootdiff/cli/__init__.py": "",
    "src/bootdiff/cli/main.py": "METHODS = {'x': 'bootdiff.named:Method'}\n",
    "tests/toys.py": "import bootdiff.builtin\n",
    "tests/test_alone.py": "import bootdiff.alone\n" + SLOW.format(""),
    "tests/test_deep.py": "from bootdiff import training\n" + SLOW.format(""),
    "tests/test_command.py": SLOW.format("cli"),
    "tests/test_process.py": "WORDS = ['-m', 'bootdiff']\n" + SLOW.format(""),
    "tests/test_toys.py": "from toys import a\n" + SLOW.format(""),
    "tests/test_fast.py": "import bootdiff.alone\n",
}


@pytest.fixture
def tree(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "changed, names",
    [
        ("src/bootdiff/alone.py", ["alone"]),
        ("src/bootdiff/deep.py", ["deep"]),
        ("src/bootdiff/named.py", ["command", "process"]),
        ("src/bootdiff/builtin/weights.bin", ["toys"]),
        ("tests/toys.py", ["toys"]),
        ("tests/test_deep.py", ["deep"]),
        ("tests/test_fast.py", []),
        ("docs/results.md", []),
        ("tests/conftest.py", ["alone", "command", "deep", "process", "toys"]),
    ],
)
def test_a_change_touches_what_reaches_it(tree, changed, names):
    assert affected([changed], tree) == [f"tests/test_{name}.py" for name in names]


def test_where_it_would_be_too_many_only_the_nearest_are_left(tree):
    changed = ["src/bootdiff/deep.py", "src/bootdiff/alone.py", "src/bootdiff/named.py"]
    assert affected(changed, tree, most=3) == ["tests/test_alone.py"]
    assert len(affected(changed, tree, most=4)) == 4


def test_the_change_is_since_the_base_or_the_last_commit(tree):
    def git(*words: str) -> None:
        person = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
        subprocess.run(["git", *person, *words], cwd=tree, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    git("add", "--all")
    git("commit", "--message", "first")
    assert changed_files(None, tree) == list(EVERYTHING), "there is no commit before: everything may have changed"
    git("branch", "landed")
    for name in ("alone", "deep"):
        (tree / f"src/bootdiff/{name}.py").write_text("X = 1\n")
        git("commit", "--all", "--message", name)
    assert changed_files(None, tree) == ["src/bootdiff/deep.py"]
    assert changed_files("unknown", tree) == ["src/bootdiff/deep.py"]
    assert changed_files("landed", tree) == ["src/bootdiff/alone.py", "src/bootdiff/deep.py"]


def test_this_repository_is_read_as_it_is():
    modules = modules_of(ROOT)
    assert "tests/test_affected.py" not in affected(EVERYTHING), "what it holds are words, and no slow test"
    assert {"bootdiff", "bootdiff.training.loop", "toys"} <= modules.keys()
    reached = imports_of(ROOT / "src/bootdiff/methods/registry.py", modules)
    assert ROOT / "src/bootdiff/methods/corrections/sid.py" in reached, "the registry names its methods in strings"

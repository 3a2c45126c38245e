"""Print the test files whose slow tests a change touches.

    python tests/affected.py [BASE]

The change is what differs between BASE and HEAD, since they parted; without BASE, or where it is not known, as in a
shallow clone, it is the last commit. A test file is touched if it or a module that it reaches by imports changed: also
by one within a function, by a string that names a module, as registries have them, and by calling the command line.
Where that is more than MOST files, only those count that changed or that import a changed module themselves.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: a change of these may change any test
EVERYTHING = ("tests/conftest.py", "tests/tiny_unet.py", "pyproject.toml", "constraints.txt", "Makefile", ".ci/run")
#: so many files' slow tests take at most half of the 40 minutes that a run may take
MOST = 12
CLI = "bootdiff.cli.main"
SLOW = re.compile(r"^@pytest.mark.slow|marks=pytest.mark.slow|^pytestmark = pytest.mark.slow", re.M)


def changed_files(base: str | None, root: Path = ROOT) -> list[str]:
    """Paths from the root; where git knows no commit before the last one, everything may have changed."""
    for since in ([f"{base}...HEAD"] if base else []) + ["HEAD~1..HEAD"]:
        done = subprocess.run(["git", "diff", "--name-only", since], cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split("\n")[:-1]
    return list(EVERYTHING)


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the package and of the tests, by its name."""
    found = {}
    for folder in (root / "src", root / "tests"):
        for path in folder.rglob("*.py"):
            found[".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports_of(path: Path, modules: dict[str, Path]) -> set[Path]:
    """The files that one file imports, names, or runs: those of the packages that a module lies in, too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in inner}
        elif (isinstance(node, ast.arg) and node.arg == "cli") or _says(node) == "bootdiff":
            names |= {CLI} if path.stem.startswith("test_") or path.stem == "toys" else set()
        elif "." in _says(node):
            names.add(_says(node).split(":")[0])
    names |= {name.rsplit(".", up)[0] for name in tuple(names) for up in range(1, name.count("."))}
    return {modules[name] for name in names if name in modules} - {path}


def affected(changed: Iterable[str], root: Path = ROOT, most: int = MOST) -> list[str]:
    """The test files that hold slow tests and are touched by a change of these files."""
    modules = modules_of(root)
    graph = {path: imports_of(path, modules) for path in modules.values()}
    slow = {path for path in graph if path.name.startswith("test_") and SLOW.search(path.read_text("utf-8"))}
    sources = {_module_of(root / name, graph) for name in changed}
    if any(name.startswith("benchmarks/") for name in changed):  # scripts, which no test imports as a module
        sources |= {path for path in slow if "benchmarks" in path.read_text("utf-8")}
    touched = slow if set(changed) & set(EVERYTHING) else {path for path in slow if _reached(path, graph) & sources}
    near = {path for path in slow if ({path} | graph[path]) & sources}
    return sorted(str(path.relative_to(root)) for path in (near if len(touched) > most else touched))


def _says(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _module_of(path: Path, graph: dict[Path, set[Path]]) -> Path:
    """The file itself, or the package that another file, such as a teacher's weights, is part of."""
    packages = (folder / "__init__.py" for folder in path.parents)
    return path if path in graph else next((package for package in packages if package in graph), path)


def _reached(path: Path, graph: dict[Path, set[Path]]) -> set[Path]:
    """This file and all that it imports, and what those import."""
    seen = {path}
    while more := set().union(*(graph[here] for here in seen)) - seen:
        seen |= more
    return seen


if __name__ == "__main__":
    print("\n".join(affected(changed_files(next(iter(sys.argv[1:]), None)))))

"""Print the test files whose slow tests a change touches.

    python tests/affected.py [BASE]

The change is what differs between BASE and HEAD, since they parted; without BASE, or where it is not known, as in a
shallow clone, it is the last commit. A test file is touched if it changed, or if a changed module is reached by its
imports. Every import counts, also one within a function, and so does a string that names a module, as the registries
have them. A test that calls the command line reaches all that the command line imports. Where that is more than MOST
files, only those count that changed or that import a changed module themselves.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: a change of these may change any test
EVERYTHING = ("tests/conftest.py", "pyproject.toml", "constraints.txt", "Makefile", ".ci/run")
#: so many files' slow tests take at most half of the 40 minutes that a run may take
MOST = 12

Graph = dict[Path, set[Path]]


def changed_files(base: str | None, root: Path = ROOT) -> list[str]:
    """Paths from the root; [] where git knows no commit before the last one."""
    for since in (*([f"{base}..."] if base else []), "HEAD~1"):
        command = ["git", "diff", "--name-only", since, *(["HEAD"] if since == "HEAD~1" else [])]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split("\n")[:-1]
    return list(EVERYTHING)


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the package and of the tests, by its name."""
    found = {}
    for folder in (root / "src", root / "tests"):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, modules: dict[str, Path]) -> set[Path]:
    """The files that one file imports or names."""
    text, names = path.read_text(encoding="utf-8"), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.arg) and node.arg == "cli":
            names.add("bootdiff.cli.main")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value.split(":")[0], *(["bootdiff.cli.main"] if node.value == "bootdiff" else [])}
    # Importing a module runs the packages that it lies in; the outermost only names what it would import.
    names |= {name.rsplit(".", up)[0] for name in tuple(names) for up in range(1, name.count("."))}
    return {modules[name] for name in names if name in modules} - {path}


def affected(changed: Iterable[str], root: Path = ROOT, most: int = MOST) -> list[str]:
    """The test files that hold slow tests and are touched by a change of these files."""
    modules = modules_of(root)
    graph = {path: imports_of(path, modules) for path in modules.values()}
    slow = {path for path in graph if path.name.startswith("test_") and "mark.slow" in path.read_text("utf-8")}
    sources = {_module_of(root / name, graph) for name in changed}
    touched = slow if set(changed) & set(EVERYTHING) else {path for path in slow if _reached(path, graph) & sources}
    near = {path for path in slow if ({path} | graph[path]) & sources}
    return sorted(str(path.relative_to(root)) for path in (near if len(touched) > most else touched))


def _module_of(path: Path, graph: Graph) -> Path:
    """The file itself, or the package that another file, such as a teacher's weights, is part of."""
    packages = (folder / "__init__.py" for folder in path.parents)
    return path if path in graph else next((package for package in packages if package in graph), path)


def _reached(path: Path, graph: Graph) -> set[Path]:
    """This file and all that it imports, and what those import."""
    seen, waiting = set(), [path]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(graph[here])
    return seen


if __name__ == "__main__":
    print("\n".join(affected(changed_files(next(iter(sys.argv[1:]), None)))))

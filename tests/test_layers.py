"""The rooms' order: nothing imports from a room to the right of its own, wherever in a file the import stands."""

import ast
import re
from pathlib import Path

import bootdiff

ROOMS = [
    *("core", "system", "builtin", "storage", "config", "schedules", "data", "teachers", "solvers", "students"),
    *("losses", "metrics", "samplers", "methods", "training", "monitoring", "export", "distillation", "teaching"),
    *("sampling", "evaluation", "report", "ablation", "benchmark", "cli"),
]
SOURCE = Path(bootdiff.__file__).parent
MODULES = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE]


def imported(path: Path) -> set[str]:
    """The rooms that a module imports from, those that it names in strings (``"bootdiff.room.module:Name"``) too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that this test sees them"
            names += [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names += [one.name for one in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names += re.findall(r"^bootdiff\.\w+(?=[.:])", node.value)
    rooms = {name.split(".")[1] for name in names if name.startswith("bootdiff.")}
    # What the package offers lazily comes from the right; its version does not.
    assert not rooms - {*ROOMS, "__version__"}, f"{path} imports {rooms - {*ROOMS}} from the package itself"
    return rooms & {*ROOMS}


def test_every_folder_is_a_room() -> None:
    assert {path.relative_to(SOURCE).parts[0] for path in MODULES} == {*ROOMS}


def test_nothing_imports_from_the_right() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports from {room}"
        for path in MODULES
        for room in sorted(imported(path))
        if ROOMS.index(room) > ROOMS.index(path.relative_to(SOURCE).parts[0])
    ]
    assert not wrong, "\n".join(wrong)

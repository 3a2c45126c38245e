"""Functions that the command line names, as ``module.py:function``: the only Python files that bootdiff runs.

A name in a config, a card or a cache cannot run a file: this module stands in the last room, from which no other one
imports (``tests/test_layers.py``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, overload

from bootdiff.config.teacher import names_function
from bootdiff.core.errors import BootdiffError, first_line, nearest, show_traceback
from bootdiff.storage.reading import check_regular
from bootdiff.system.out_of_memory import let_pass

if TYPE_CHECKING:
    from bootdiff.metrics.features import Features
    from bootdiff.teachers import Teacher


@overload
def named_teacher(word: str) -> str | Teacher: ...
@overload
def named_teacher(word: str | None) -> str | Teacher | None: ...
def named_teacher(word: str | None) -> str | Teacher | None:
    """Return the teacher that a function of a Python file returns; any other name is returned as it is, and so is None.

    The function takes nothing and returns a ``bootdiff.Teacher`` or a diffusers pipeline.

    Raises:
        BootdiffError: if the file cannot be run, has no such function, or the function returns something else.
    """
    if word is None or not names_function(word):
        return word
    from bootdiff.teachers import Teacher, load_teacher

    made = _asked(word, _function(word)[0])
    try:
        teacher = load_teacher(made) if not isinstance(made, str) else None
    except BootdiffError as error:
        raise BootdiffError(f"{word} returned no teacher: {error}") from error
    if teacher is None:
        raise BootdiffError(
            f"{word} returned a string; expected a teacher such as bootdiff.CallableTeacher(…), or a diffusers "
            "pipeline."
        )
    layer: Any = teacher
    seen: set[int] = set()  # one that wraps itself ends here, too
    while isinstance(layer, Teacher) and id(layer) not in seen:  # wrappers have the name of what they wrap
        seen.add(id(layer))
        layer.name, layer = word, getattr(layer, "inner", None)
    return teacher


def named_features(word: str | None) -> str | Features | None:
    """Return the feature space that a function of a Python file is; any other name is returned as it is.

    The function takes images (b, …) as the teacher makes them and returns their features (b, d).

    Raises:
        BootdiffError: if the file cannot be run or has no such function.
    """
    if word is None or not names_function(word):
        return word
    from bootdiff.metrics.callable_features import CallableFeatures

    function, content = _function(word)
    file, name = _parts(word)
    return CallableFeatures(function, f"{file.name}:{name}-{content}")


def _parts(word: str) -> tuple[Path, str]:
    file, _, name = word.rpartition(":")
    return Path(file), name


def _function(word: str) -> tuple[Callable[..., Any], str]:
    """Run the file that a word names; return its function, and a hash of the file's content."""
    file, name = _parts(word)
    check_regular(file, "Python file")
    content = file.read_bytes()
    module = _run(file, content)
    found = _asked(str(file), lambda: getattr(module, name, None))
    if inspect.iscoroutinefunction(found):
        raise BootdiffError(f"{word} is a coroutine; expected a function that returns its result at once.")
    if not callable(found):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise BootdiffError(f"{file} has no function '{name}'.{nearest(name, own)}")
    function: Callable[..., Any] = found
    return function, hashlib.blake2b(content, digest_size=4).hexdigest()


def _run(file: Path, content: bytes) -> ModuleType:
    """Return a file as a module, which runs once; what stands beside it can be imported, after what is installed."""
    place = file.resolve()
    name = f"_bootdiff_{file.stem}_{hashlib.blake2b(str(place).encode() + content, digest_size=4).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BootdiffError(f"{file} cannot be run as a Python file; name another.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    try:
        # Not by the loader, which would run the compiled file of a cache in place of this content.
        _asked(str(file), lambda: exec(compile(content, str(file), "exec"), vars(module)))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _asked(word: str, ask: Callable[[], Any]) -> Any:
    """Return what somebody's own code returns; whatever it raises becomes one line.

    What it prints goes to standard error, because standard output may be JSON.
    """
    try:
        with redirect_stdout(sys.stderr):
            return ask()
    except BootdiffError:
        raise
    except (Exception, SystemExit) as error:
        let_pass(error)
        show_traceback()
        raise BootdiffError(
            f"{word} raised {type(error).__name__} ({first_line(error)}); mend it (BOOTDIFF_DEBUG=1 shows where)."
        ) from error

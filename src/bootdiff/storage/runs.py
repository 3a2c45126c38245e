"""The folder of a run: it holds what was asked, what the run was made with, how far it is, and what came out."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from bootdiff.builtin import check_output_name
from bootdiff.core.errors import BootdiffError, first_line, one_line, shown
from bootdiff.storage.files import has_leftovers, read_json, write_json, write_text
from bootdiff.storage.lock import LOCK, lock, tidy
from bootdiff.storage.reading import check_kinds, check_name, parse_json, read_config, read_text
from bootdiff.system.invoked import command
from bootdiff.system.notes import note, said

#: the settings that change how a run is watched and kept, but not what comes out of it
HARMLESS = ("log_every", "sample_every", "checkpoint_every", "keep_last", "watch_every")

#: the settings that are newer than the first runs; a run whose config lacks one goes on with what is asked for now
NEWER = ("keep", "source", "pair_steps", "pair_solver")
#: of newer settings, what runs of before there were such settings did; anything else is another run
USUAL = {"noise_scale": 1.0, "critic_learning_rate": 1e-3}
#: the file with the run's own copy of its prompts, and the most bytes that it may have
PROMPTS, MOST_PROMPTS = "prompts.json", 8 * 2**30
#: the file that says of a run that it is finished, and how it ended
DONE = "done.json"
#: the name of the hash of a teacher's components beside its network; runs of earlier versions do not have it
COMPONENTS = "components"
#: for each setting that says where something lies, the hash that says what it is; with equal hashes places may differ
PLACES = {
    "teacher": "teacher",
    "lora": "teacher",
    "pipeline_config": "teacher",
    "data": "data",
    "images": "data",
    "prompts": "prompts",
    "base": "base",
    "start": "start",
    "student": "student",
}


def trained_seconds(folder: Path) -> float:
    """Return how many seconds the training of a finished run took, over all of its stages."""
    stages = [run.folder for run in (*Run(folder).earlier, Run(folder))]
    return sum(float(read_done(stage)["seconds"]) for stage in stages if (stage / DONE).exists())


def read_done(folder: Path) -> dict[str, Any]:
    """Return how a finished run ended, checked; ``distillation.ending.Ended`` says what the entries mean.

    Raises:
        BootdiffError: if the file is missing or damaged.
    """
    path, cure = folder / DONE, f"remove {DONE} and repeat the run's command"
    words = read_json(path, cure=cure)
    kinds = {
        "student_step": int,
        "diverged": str,
        "data_free": bool,
        "passes": dict,
        "not_exported": str,
        "peak_memory": int,
    }
    optional = {key: kind for key, kind in kinds.items() if key in words}
    check_kinds(words, path, cure, steps=int, seconds=float | int, **optional)
    return words


class Run:
    """The folder of a run, and what its files say.

    It holds ``config.yaml`` (what was asked, resolved), ``meta.json`` (versions, hashes, command), ``log.jsonl``,
    ``checkpoints/``, ``samples/``, and the results.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def around(cls, folder: Path | str) -> Run:
        """Return the run that a folder is, or in which it lies, as the folder of a student does."""
        here = Path(folder)
        return next((run for run in (cls(here), cls(here.resolve().parent)) if run.started), cls(here))

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``config.yaml``: what was asked, resolved.

        Raises:
            BootdiffError: if the file is damaged.
        """
        path = self.folder / "config.yaml"
        words, cure = read_config(path), "bring it back or choose another folder"
        kinds: dict[str, Any] = {key: str for key in ("task", "teacher", "data", "method")}
        kinds.update(settings=dict, stages=list)
        needed = {"task", "teacher", "method", "settings"} if words.get("task", "distill") == "distill" else set()
        check_kinds(words, path, cure, **{key: kind for key, kind in kinds.items() if key in {*words, *needed}})
        if "teacher_options" in words:
            check_kinds(words, path, cure, teacher_options=dict)
        settings = words.get("settings", {})
        # A teacher's ``student`` is the settings of a student beside it, and no place.
        places = PLACES if words.get("task", "distill") == "distill" else PLACES.keys() - {"student"}
        check_kinds(settings, path, cure, **{key: str | None for key in places if key in settings})
        return words

    @property
    def meta(self) -> dict[str, Any]:
        """The content of ``meta.json``: the versions, hashes and command that the run was made with.

        Raises:
            BootdiffError: if the file is damaged.
        """
        path, cure = self.folder / "meta.json", "bring it back or choose another folder"
        words = read_json(path, cure=cure)
        kinds: dict[str, Any] = {"sources": dict, "command": str, "folder": str, "versions": dict}
        present = {key: kind for key, kind in kinds.items() if key in words}
        check_kinds(words, path, cure, **present)
        return words

    @property
    def student(self) -> Path:
        """The folder of the student's stock pipeline."""
        return self.folder / "student"

    @property
    def student_path(self) -> Path:
        """The folder of the student that answers for every time of the path."""
        return self.folder / "student-path"

    @property
    def figures(self) -> Path:
        """The file in which the run keeps the figures of its evaluation."""
        return self.folder / "evaluation.json"

    @property
    def earlier(self) -> Sequence[Run]:
        """The runs of the stages before the last one, in order; empty where this run has one stage."""
        if not self.started:
            return ()
        words = self.config
        named = words.get("stages", str(words.get("method", "")).split("+")[:-1])
        return [Run(self.folder / str(name)) for name in named]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the run's method; empty where no run has started."""
        return self.config.get("settings", {}) if self.started else {}

    @property
    def started(self) -> bool:
        """Whether the folder holds a run."""
        return (self.folder / "config.yaml").is_file()

    @property
    def prompts(self) -> Sequence[str] | None:
        """The prompts that the run's student was distilled on; None where it was not distilled on text."""
        path = self.folder / PROMPTS
        if not path.is_file():
            return None
        try:
            words = parse_json(read_text(path, MOST_PROMPTS, "prompts file"))
        except (OSError, ValueError) as error:
            raise BootdiffError(
                f"{path} cannot be read ({first_line(error)}); give --prompts FILE, or repeat the run."
            ) from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise BootdiffError(f"{path} should hold a list of prompts; give --prompts FILE, or repeat the run.")
        return words

    def keep_prompts(self, prompts: Sequence[str]) -> None:
        """Keep a copy of the prompts, so that the run can be sampled and reported wherever their file has gone."""
        if not (self.folder / PROMPTS).exists():
            write_text(self.folder / PROMPTS, json.dumps(list(prompts), ensure_ascii=False, indent=0))

    def commit(self, teacher: str) -> str | None:
        """Return the commit of the hub teacher that the run began with, so that it goes on with the same one.

        It is None where no run has started, where ``teacher`` is another one than the run's, or where it came from no
        hub.
        """
        return self.meta.get("commit") if self.started and self.config.get("teacher") == teacher else None

    def locate(self, name: str) -> str:
        """Return the path of a file or folder that the run's command named, as seen from where that command ran."""
        there = Path(self.meta.get("folder", ".")) / name if self.started else Path(name)
        return str(there) if there.exists() else name

    def locate_all(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a teacher's options with the paths of their files as seen from where the run was started."""
        return {k: self.locate(value) if k in ("lora", "pipeline_config") else value for k, value in options.items()}

    def check(self, config: Mapping[str, Any], sources: Mapping[str, str], former: Collection[str] = ()) -> None:
        """Refuse a folder that is neither new nor the folder of this very run, so that runs do not mix.

        Args:
            sources: the hashes of what the run reads, by name: teacher, prompts, base, data.
            former: the settings without effect that are gone by now and that a run of an earlier version still names.

        Raises:
            BootdiffError: if the folder holds something else; the message names what differs, and how to resume or
                choose anew.
        """
        check_name(self.folder)
        if not self.folder.exists():
            check_output_name(self.folder)
            return
        if not self.folder.is_dir():
            raise BootdiffError(f"{self.folder} is a file; expected a folder for the run, so choose another --output.")
        if not self.started:
            # What a kill leaves behind: encoded prompts, or the first of the two files of ``start``.
            mine = ("meta.json", "prompts", "base-prompts", PROMPTS)
            strangers = [p.name for p in self.folder.iterdir() if p.name not in mine and not p.name.startswith(".")]
            if strangers:
                raise BootdiffError(
                    f"{self.folder} exists and is no bootdiff run (it holds {strangers[0]}); choose another --output."
                )
            return
        then = self.meta.get("sources", {})
        same = {key for key, source in PLACES.items() if source in sources and then.get(source) == sources[source]}
        if then.get(COMPONENTS) != sources.get(COMPONENTS):  # two pipelines may share their networks only
            same -= {"teacher"}
        found = [(key, words) for key, words in _differences(self.config, config) if key not in former]
        differences = [words for key, words in found if key not in same]
        if not differences:
            self._check_sources(sources)
        if differences:
            raise BootdiffError(
                f"{self.folder} holds another run ({'; '.join(differences[:3])}); choose another --output, or "
                "repeat its command to resume it:",
                str(self.meta.get("command", "see config.yaml")),
            )
        for words in (words for key, words in found if key in same):
            note(f"{words}, but what lies there is the same: the run goes on.")

    def _check_sources(self, sources: Mapping[str, str]) -> None:
        then = self.meta.get("sources", {})
        known = {**then, **{name: sources[name] for name in sources if name != COMPONENTS or name in then}}
        changed = [name for name in known if then.get(name) != sources.get(name)]
        if changed:
            words = " and ".join(changed)
            raise BootdiffError(
                f"{self.folder} holds another run (what it read has changed since: {words}); bring the old {words} "
                "back to resume it, or choose another --output."
            )

    def tidy(self) -> None:
        """Remove what a killed process has left in a finished run, unless another process is at work there."""
        with suppress(BootdiffError, OSError):  # a folder of somebody else's
            if any(self.folder.rglob(LOCK)) or has_leftovers(self.folder):
                with lock(self.folder):
                    tidy(self.folder)

    def start(self, config: Mapping[str, Any], sources: Mapping[str, str], commit: str | None = None) -> None:
        """Write what was asked, and remove what a kill within a write left; a resumed run keeps its first files.

        Args:
            commit: the commit of a teacher from the hub; None for any other teacher.
        """
        tidy(self.folder)
        if self.started:
            return
        words = {"sources": dict(sources), "command": command(), "folder": str(Path.cwd()), "notes": said()}
        words.update({"commit": commit} if commit else {})
        write_json(self.folder / "meta.json", {**words, **environment()})
        write_text(self.folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def environment() -> dict[str, Any]:
    """Return the versions of the libraries and of Python and the machine's kind, for ``meta.json`` and result files."""
    names = ("bootdiff", "torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy")
    versions = {name: _version(name) for name in names}
    return {"versions": versions, "python": platform.python_version(), "machine": platform.machine()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a pair (setting, what differs) for every setting in which two runs' configs differ."""
    found = []
    for key in [*there, *(k for k in here if k not in there)]:
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b)
        elif key not in there and (b in (None, "", "no", {}, [], False) or (key in USUAL and b == USUAL[key])):
            continue  # a run of before there was such a setting, which is left at "nothing" now
        elif key not in there and key in NEWER:
            continue
        elif a != b and key not in HARMLESS:
            found.append((str(key), f"{_cut(key)} is {_cut(a)} there and {_cut(b)} here"))
    return found


def _cut(value: Any) -> str:
    """Return a value as it stands in a config, cut to 80 characters."""
    return one_line(f"{value}" if isinstance(value, str | int | float) or value is None else shown(value), 80)

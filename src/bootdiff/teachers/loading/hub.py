"""Finding a pipeline's folder: a local one, a builtin's, or one from the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootdiff.builtin import BUILTIN_TEACHERS, builtin_folder
from bootdiff.core.errors import BootdiffError, nearest
from bootdiff.storage.files import read_json
from bootdiff.system.notes import note
from bootdiff.system.out_of_memory import let_pass
from bootdiff.teachers.adapters import adapter_of_index
from bootdiff.teachers.loading.index import SPARE

#: matches a full commit, which stands for the same files for ever
COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_pipeline(name: str, revision: str | None = None, variant: str | None = None) -> Path:
    """Return the local folder of a pipeline; a name that is neither a folder nor a builtin is fetched from the hub.

    Raises:
        BootdiffError: if no pipeline of that name can be found or fetched.
    """
    folder = Path(name)
    if folder.exists():
        if not (folder / "model_index.json").is_file():
            if (folder / "config.yaml").is_file() and (folder / "meta.json").is_file():
                raise BootdiffError(f"{name} is a run of bootdiff, not a finished teacher; name the teacher itself.")
            raise BootdiffError(f"{name} is no diffusers pipeline: expected a folder with a model_index.json.")
        if revision is not None:
            raise BootdiffError(f"{name} is a folder, which has no revision '{revision}'; revisions are for hub ids.")
        return folder
    if name in BUILTIN_TEACHERS:
        if revision is not None or variant is not None:
            raise BootdiffError(f"the builtin {name} has no revisions and no variants; leave both out.")
        return builtin_folder(name) / "teacher"
    # A hub id has the form owner/model; anything else with a slash or a dot was meant as a path.
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        hint = nearest(name, BUILTIN_TEACHERS)
        raise BootdiffError(
            f"no folder and no builtin teacher is called '{name}'; builtin: {', '.join(BUILTIN_TEACHERS)}.{hint}"
        )
    return _download(name, revision, variant)


def commit_of(folder: Path) -> str | None:
    """Return the commit of a snapshot in the hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def _download(name: str, revision: str | None, variant: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    cached = _cached(name, revision, variant)
    # A commit never changes; a branch is asked for, unless the user works offline.
    if cached is not None and (HF_HUB_OFFLINE or COMMIT.fullmatch(revision or "")):
        return cached
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=["model_index.json"])
        index = read_json(Path(folder) / "model_index.json")
        adapter_of_index(index, name)  # before its weights are fetched
        # Of this very commit, whatever the branch is by now.
        commit = commit_of(Path(folder)) or revision
        wanted = files_to_fetch(HfApi().list_repo_files(name, revision=commit), index, variant)
        snapshot_download(name, revision=commit, allow_patterns=wanted)
    except BootdiffError:
        raise
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        let_pass(error)
        if cached is not None:
            note(f"the hub does not answer for {name}; read from the cache at commit {cached.name[:12]}.")
            return cached
        where = f"'{name}'" if revision is None else f"'{name}' at revision '{revision}'"
        raise BootdiffError(
            f"{where} is no folder here and could not be fetched from the hub ({type(error).__name__}); check the "
            "spelling and the connection, or give a local folder."
        ) from error
    return Path(folder)


def _cached(name: str, revision: str | None, variant: str | None) -> Path | None:
    """Return the snapshot in the hub's cache if it holds all that the pipeline needs; None otherwise."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        index = read_json(folder / "model_index.json")
        # A link whose file is missing was being fetched when somebody stopped it.
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    except Exception:  # nothing there, or not a pipeline
        return None
    return folder if _whole(folder, files, index, variant) else None


def _whole(folder: Path, files: Sequence[str], index: Mapping[str, Any], variant: str | None) -> bool:
    """Return whether these files are all that the pipeline's components need."""
    for part, entry in index.items():
        if part in SPARE or not isinstance(entry, list) or not entry or entry[0] is None:
            continue
        here = [file for file in files if file.startswith(f"{part}/")]
        root = part in ("unet", "scheduler") and not here
        chosen = _of_place("" if root else f"{part}/", files, variant)
        small = any(word in part for word in ("scheduler", "tokenizer", "extractor", "processor"))
        if not chosen or not (small or any(file.endswith((".safetensors", ".bin")) for file in chosen)):
            return False
        for listed in (file for file in chosen if file.endswith("safetensors.index.json")):
            shards = read_json(folder / listed).get("weight_map", {}).values()
            if not all(f"{listed.rpartition('/')[0]}/{shard}".lstrip("/") in files for shard in shards):
                return False
    return True


def one_file(name: str, known: Sequence[str], beside: Sequence[str] = ()) -> Path:
    """Return the one safetensors file of a repository, from the hub or its cache.

    Where there are several, it is the one that has a known name.

    Args:
        beside: the names of small files that are fetched with it where they are there.

    Raises:
        BootdiffError: if the file cannot be fetched, or there are several and it is not clear which one is meant.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        try:
            files = [file for file in HfApi().list_repo_files(name) if file.endswith(".safetensors")]
            chosen = [file for file in files if file in known] or files
            folder = Path(snapshot_download(name, allow_patterns=[*chosen[:1], *beside]))
        except Exception:  # no connection, or none wanted
            folder = Path(snapshot_download(name, local_files_only=True))
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
            chosen = [file for file in files if file in known] or files
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        raise BootdiffError(
            f"'{name}' is no file here and could not be fetched from the hub ({type(error).__name__}); check the "
            "spelling and the connection, or give a local file."
        ) from error
    if len(chosen) != 1:
        raise BootdiffError(f"'{name}' holds {len(chosen)} .safetensors files; fetch one and give it as a file.")
    return folder / chosen[0]


def config_folder(name: str) -> Path:
    """Return a folder with the configs and tokenizers of a hub's pipeline, without its weights.

    They come from the hub or its cache.

    Raises:
        BootdiffError: if they can be had from neither.
    """
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model", "*/*.json", "*/*.txt", "*/*.model"]
    try:
        try:
            return Path(snapshot_download(name, allow_patterns=wanted))
        except Exception:  # no connection, or none wanted
            return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        raise BootdiffError(
            f"--pipeline-config {name} is no folder here and could not be fetched from the hub "
            f"({type(error).__name__}); give a folder with the pipeline's configs."
        ) from error


def files_to_fetch(files: Sequence[str], index: Mapping[str, Any], variant: str | None) -> list[str]:
    """Return those of a repository's files that a pipeline needs: one kind of weights a component, and all small files.

    A repository may hold single files of gigabytes beside its components, and each component's weights many times over.

    Args:
        files: the paths of all files in the repository.
        index: the content of its ``model_index.json``.
        variant: the variant of the weights, taken where a component has it; the others' plain weights are taken.
    """
    parts = [part for part, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
    places = [f"{part}/" for part in parts if any(file.startswith(f"{part}/") for file in files)]
    # The hub's oldest pipelines lie in the repository's own folder.
    wanted = [
        "model_index.json",
        *([] if "unet/" in places or "transformer/" in places else _of_place("", files, variant)),
    ]
    for place in places:
        wanted += _of_place(place, files, variant)
    return sorted(set(wanted))


def _of_place(place: str, files: Sequence[str], variant: str | None) -> list[str]:
    here = [file for file in files if file.startswith(place) and "/" not in file.removeprefix(place)]
    small = [file for file in here if file.endswith((".json", ".txt", ".model"))]
    for kind in ("safetensors", "bin"):
        weights = [file for file in here if file.endswith(f".{kind}")]
        chosen = [file for file in weights if variant is not None and f".{variant}" in file.removeprefix(place)]
        # diffusion_pytorch_model-00001-of-00002.safetensors is plain, model.fp16.safetensors is a variant.
        plain = [file for file in weights if file.removeprefix(place).count(".") == 1]
        if chosen or plain:
            return small + (chosen or plain)
    return small

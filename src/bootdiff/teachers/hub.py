"""Finding a pipeline's folder: a local one, a builtin, or one from the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bootdiff.builtin import BUILTIN_TEACHERS, builtin_folder
from bootdiff.errors import BootdiffError, nearest
from bootdiff.files import read_json
from bootdiff.teachers.adapters import adapter_of_index


def resolve_pipeline(name: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The local folder of a pipeline, downloaded from the hub if ``name`` is neither a folder nor a builtin.

    Raises:
        BootdiffError: if nothing by that name can be had.
    """
    folder = Path(name)
    if folder.exists():
        if not (folder / "model_index.json").is_file():
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
        raise BootdiffError(f"no folder and no builtin teacher is called '{name}'; builtin: digits.{hint}")
    return _download(name, revision, variant)


def _download(name: str, revision: str | None, variant: str | None) -> Path:
    from huggingface_hub import snapshot_download

    # Without a variant, those of other precisions would be downloaded for nothing.
    others = None if variant else ["*.fp16*", "*.bf16*", "*.non_ema*"]
    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=["*.json"])
        index = read_json(Path(folder) / "model_index.json")
        adapter_of_index(index, name)  # before its weights are fetched
        parts = [part for part, entry in index.items() if isinstance(entry, list) and entry[0] is not None]
        for wanted in _weight_patterns(parts, variant):
            snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=others)
            if list(Path(folder).rglob("*.safetensors")) or list(Path(folder).rglob("*.bin")):
                break
    except BootdiffError:
        raise
    except Exception as error:  # the hub client raises many kinds; to the user each means "not to be had"
        where = f"'{name}'" if revision is None else f"'{name}' at revision '{revision}'"
        raise BootdiffError(
            f"{where} is no folder here and could not be fetched from the hub ({type(error).__name__}); check the "
            "spelling and the connection, or give a local folder."
        ) from error
    return Path(folder)


def _weight_patterns(parts: Sequence[str], variant: str | None) -> Iterator[list[str]]:
    """What to fetch, the best first: safetensors of the components (a repository may hold single files of gigabytes
    beside them), those of the oldest pipelines in the folder itself, and at last pickles, read without running them."""
    for folders in ([f"{part}/" for part in parts], [""]):
        for kind in ("safetensors", "bin"):
            ends = [f".{variant}.{kind}", f".{variant}-*.{kind}"] if variant else [f".{kind}"]
            small = [f"{folder}*{end}" for folder in folders for end in (".txt", ".model")]  # of tokenizers
            yield [*(f"{folder}*{end}" for folder in folders for end in ends), *small]

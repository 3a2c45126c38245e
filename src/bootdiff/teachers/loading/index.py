"""A pipeline's ``model_index.json``: it says of which class each component is, and every entry is checked here."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.files import read_json
from bootdiff.system.notes import note
from bootdiff.system.quiet import quietly
from bootdiff.teachers.loading.safety import check_files

#: the libraries whose classes a pipeline may name; anything else would be somebody's own code
LIBRARIES = ("diffusers", "transformers")
#: the components that no student needs: where their folders were left out, the pipeline is read without them
SPARE = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
#: matches names that are those of components in every pipeline
COMPONENT = re.compile(
    r"(unet|transformer|prior|vae|vqvae|movq|(\w+_)?scheduler|tokenizer|text_encoder|image_encoder|image_processor|"
    r"feature_extractor|safety_checker|watermarker)(_\d)?"
)
#: the new names of classes that were renamed in later versions of transformers
RENAMED = {"CLIPFeatureExtractor": "CLIPImageProcessor", "ViTFeatureExtractor": "ViTImageProcessor"}


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``model_index.json``, with every component's entry and class checked.

    Raises:
        BootdiffError: if an entry is of a wrong kind, or a file would run code; the message names it.
    """
    check_files(folder)
    path = folder / "model_index.json"
    index = read_json(path)
    if not isinstance(index.get("_class_name", ""), str):
        raise BootdiffError(
            f"{path}: _class_name is {index['_class_name']!r:.60}, which stands for code of its own; expected the name "
            "of a stock pipeline."
        )
    for part, entry in index.items():
        if not part.startswith("_"):
            _check_entry(part, entry, folder)
    for part in [part for part, entry in index.items() if _names_class(entry)]:
        component_class(folder, part, *index[part])
    return _without_spare(index, folder)


def component_class(folder: Path, part: str, library: str, kind: str) -> type[Any]:
    """Return the class of a component.

    Raises:
        BootdiffError: if the library has no class of this name, or the class does not fit this component.
    """
    module = library if library in LIBRARIES else f"diffusers.pipelines.{library}"
    with quietly():  # some classes remark on what is not installed when they are imported
        found: Any = getattr(import_module(module), RENAMED.get(kind, kind), None)
        bases = _bases(part)
    # Of a scheduler whose own dependency is not installed diffusers has a placeholder; its config is read all the same.
    placeholder = "scheduler" in part and ".dummy_" in getattr(found, "__module__", "") and kind.endswith("Scheduler")
    if not placeholder and not (isinstance(found, type) and issubclass(found, bases)):
        names = " or ".join(base.__name__ for base in bases)
        met = "does not exist" if found is None else "is none"
        raise BootdiffError(
            f"{folder / 'model_index.json'}: {part} should be a {names}, and {kind:.60} of {library} {met}."
        )
    return found


def _check_entry(part: str, entry: Any, folder: Path) -> None:
    """Refuse an entry that is no component's library and class where one is expected."""
    where, form = folder / "model_index.json", "[library, class], or [null, null] for none"
    pair = isinstance(entry, list) and (entry == [None, None] or _names_class(entry))
    if not pair and (COMPONENT.fullmatch(part) or (isinstance(entry, str | dict | list) and (folder / part).is_dir())):
        raise BootdiffError(f"{where}: {part} should be {form}, got {entry!r:.60}.")
    if not _names_class(entry):
        return
    library, kind = entry
    if not part.isidentifier() or not kind.isidentifier():
        raise BootdiffError(f"{where}: '{part:.40}' should be a component's name and {form}, got {entry!r:.60}.")
    # Parts of single pipelines, such as safety checkers, are named by their module in diffusers.
    if library not in LIBRARIES and not (library.isidentifier() and find_spec(f"diffusers.pipelines.{library}")):
        raise BootdiffError(
            f"{folder}: its {part} is a {kind} of {library:.60}, which would run foreign code; expected a class of "
            f"{' or '.join(LIBRARIES)}."
        )


def _names_class(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)


def _bases(part: str) -> tuple[type[Any], ...]:
    """Return the classes from which a component of this name must be derived; one of them suffices."""
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    if "scheduler" in part:
        return (SchedulerMixin,)
    if part in ("unet", "transformer", "vae", "prior"):  # without transformers, whose import takes seconds
        return (diffusers.ModelMixin,)
    import transformers

    if "tokenizer" in part:
        return (transformers.PreTrainedTokenizerBase,)
    processors = (transformers.ImageProcessingMixin, transformers.FeatureExtractionMixin, transformers.ProcessorMixin)
    if "extractor" in part or "processor" in part:
        return processors
    models = (transformers.PreTrainedModel, diffusers.ModelMixin)
    return models if COMPONENT.fullmatch(part) else (*models, *processors, SchedulerMixin)


def _without_spare(index: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the index without the components that it names but the folder does not hold.

    This is how stock diffusers opens the pipeline if they are given as None.
    """
    lost = [part for part in SPARE if _names_class(index.get(part)) and not (folder / part).is_dir()]
    # A safety checker is of no use without what prepares its images.
    if "feature_extractor" in lost and _names_class(index.get("safety_checker")):
        lost.append("safety_checker")
    if not lost:
        return index
    lost = list(dict.fromkeys(lost))
    note(f"{folder} names {' and '.join(lost)} but does not hold them; the pipeline is read without.")
    return {**index, **{part: [None, None] for part in lost}}

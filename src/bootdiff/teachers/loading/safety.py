"""Checking that a pipeline's folder holds no code, and no config that asks for some (``SECURITY.md``)."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.core.errors import BootdiffError
from bootdiff.storage.files import read_json

#: the fields by which a config names a Python file, beside it or on the hub
CODE = ("auto_map", "custom_pipelines", "custom_pipeline", "custom_objects")
#: fields that name an implementation; transformers fetches one that looks like a hub id from the hub and runs it
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
#: the JSON files that diffusers, transformers and tokenizers read by themselves
READ = ("config.json", "*_config.json", "*.index*.json", "tokenizer.json", "vocab.json", "added_tokens.json")
#: the config that bootdiff reads itself and hands on as fields, so that a byte order mark in it does no harm
SCHEDULER = "scheduler_config.json"


def check_files(folder: Path) -> None:
    """Refuse a folder whose files would run code, or cannot be read safely.

    Raises:
        BootdiffError: if there is such a file; the message names it and says what it holds.
    """
    code = next((path for path in sorted(folder.glob("*")) if path.suffix in (".py", ".pyc", ".so")), None)
    if code is not None:
        raise BootdiffError(
            f"{folder.name}/{code.name} is code, which no pipeline here may bring and bootdiff never runs; remove it, "
            f"or give a folder without it ({folder})."
        )
    # Before transformers sees it: a text encoder with an adapter beside it would become another one.
    if (folder / "adapter_config.json").exists():
        raise BootdiffError(
            f"{folder} holds an adapter (adapter_config.json) beside its weights; merge it into them, or remove it."
        )
    for pattern in (*READ, "special_tokens_map.json"):
        for path in sorted(folder.glob(pattern)):
            _check_words(read_json(path), path)
            _check_mark(path)


def _check_mark(path: Path) -> None:
    """Refuse a file with a byte order mark where a library reads it by itself: to all of them it is no JSON."""
    with path.open("rb") as file:
        marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    if marked and path.name != SCHEDULER:
        raise BootdiffError(
            f"{path} begins with a byte order mark, which neither diffusers nor transformers reads; save it as UTF-8 "
            "without one."
        )


def _check_words(words: Mapping[str, Any], path: Path) -> None:
    """Refuse a config that names code, quantised weights, or weights outside its folder."""
    for key, value in words.items():
        named = key in CODE and value not in (None, {}, [])
        fetched = any(word in key for word in IMPLEMENTATIONS) and "/" in str(value)
        if named or fetched:
            raise BootdiffError(
                f"{path} names code of its own ({key}: {value!r:.60}), which bootdiff never runs; expected a component "
                "of diffusers or transformers."
            )
        if key == "quantization_config" and value is not None:
            raise BootdiffError(
                f"{path}: quantised weights (quantization_config) are not supported; expected plain ones."
            )
        if isinstance(value, dict) and "config" in path.name:
            _check_words(value, path)
    files = words.get("weight_map", {}) if ".index" in path.name else {}
    for file in files.values() if isinstance(files, dict) else [files]:
        if not isinstance(file, str) or Path(file).name != file:
            raise BootdiffError(f"{path}: weight_map names {file!r:.60}; expected files beside it.")

"""The work of ``bootdiff train-teacher``: it trains a teacher and says how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bootdiff.config.settings import make_settings, read_command
from bootdiff.storage.reading import read_config
from bootdiff.system.progress import is_first_process
from bootdiff.teaching.settings import TeacherSettings
from bootdiff.teaching.teach import train_teacher


def run_train_teacher(
    data: str,
    output: Path,
    config: Path | None,
    assign: list[str],
    options: Mapping[str, Any],
    report_to: str | None,
) -> None:
    """Train a teacher, or say that it is finished."""
    settings = make_settings(TeacherSettings, read_config(config), read_command(assign, options))
    if train_teacher(data, output, settings, report_to):
        if is_first_process():
            more = _needs(settings.kind)
            print(f"teacher: {output}  (try: bootdiff distill {output}{more} --output runs/student)")
            if settings.with_student != "no":
                from bootdiff.teaching.joint import FOLDER

                together = output / FOLDER
                words = f"BASE {together}" if settings.kind == "if-upscaler" else f"{together}"
                words += "" if settings.kind in ("unconditional", "classes") else " --prompt TEXT"
                print(f"student: {together / 'student'}  (try: bootdiff sample {words} --output grid.png)")
    else:
        print(f"done: {output} already holds this teacher.")


def _needs(kind: str) -> str:
    """Return the options that a distillation of this kind of teacher needs, as text."""
    words = {"unconditional": "", "classes": "", "if-upscaler": " --prompts FILE --base RUN"}
    return words.get(kind, " --prompts FILE")

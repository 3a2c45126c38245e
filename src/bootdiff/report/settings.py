"""The tables of settings in a report."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from bootdiff.report.finished import Finished
from bootdiff.report.page import cell, command, head_row, note, row, section, table
from bootdiff.report.privacy import command_without_places, value_without_places

#: the largest number of characters of a value; longer ones are cut
LONGEST = 120


def settings_table(run: Finished) -> str:
    """Return a section with a run's command, settings and versions, as HTML."""
    rows = [row(key, [cell(_said(value))]) for key, value in _flat(run).items()]
    inner = table([head_row(["setting", "value"])], rows, "Settings")
    return section(
        "Settings", command(command_without_places(run.meta["command"])), f'<div class="words">{inner}</div>'
    )


def differences_table(runs: Sequence[Finished]) -> str:
    """Return a section with the settings that are not the same in all runs, as HTML."""
    asked = [_flat(run) for run in runs]
    keys = dict.fromkeys(key for settings in asked for key in settings)
    rows = [
        row(key, [cell(_said(settings.get(key, "–"))) for settings in asked])
        for key in keys
        if any(settings.get(key) != asked[0].get(key) or key not in settings for settings in asked)
    ]
    if not rows:
        return section("Settings that differ", note("None: all settings and versions are the same."))
    inner = table([head_row(["setting", *(run.name for run in runs)])], rows, "Settings that differ")
    return section("Settings that differ", f'<div class="words">{inner}</div>')


def commands(runs: Sequence[Finished]) -> str:
    """Return a section with the command of each run, as HTML."""
    return section(
        "Commands",
        *(f"<h3>{html.escape(run.name)}</h3>{command(command_without_places(run.meta['command']))}" for run in runs),
    )


def _flat(run: Finished) -> dict[str, Any]:
    config = run.config
    settings = {key: value for key, value in config["settings"].items() if not isinstance(value, dict)}
    for stage, own in config["settings"].items():
        if isinstance(own, dict):
            settings.update({f"{stage}.{key}": value for key, value in own.items()})
    options: Mapping[str, Any] = config.get("teacher_options") or {}
    return {
        "teacher": config["teacher"],
        **{f"teacher's {key}": value for key, value in options.items()},
        "method": config["method"],
        **settings,
        **{f"version of {key}": value for key, value in run.meta["versions"].items()},
    }


def _said(value: Any) -> str:
    value = value_without_places(value)
    words = "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} …"

"""The ``--help`` of the training commands, which lists the settings: with ``--method`` or ``--kind`` those of one."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class _Listing(TyperCommand):
    """A command whose help ends with a list of settings."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the typed words before they are parsed, because help is printed during parsing."""
        ctx.meta["bootdiff.args"] = list(args)
        return super().parse_args(ctx, args)


class DistillCommand(_Listing):
    """A command whose help ends with the settings of the chosen method."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, and the settings of the chosen method."""
        super().format_help(ctx, formatter)
        from bootdiff.methods.registry import find_method, names, single_names

        method = _chosen(ctx, "--method", "boot")
        two = [name for name in names() if name.endswith(f"+{method.split('+')[-1]}")]
        known = f"{', '.join(single_names())}; two in one run, such as {', '.join(two)}"
        print_settings(f"Settings of method {method} (methods: {known})", find_method(method).settings)


class TeachCommand(_Listing):
    """A command whose help ends with the settings of teacher training: those of the chosen kind, or of all."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, and the settings of the chosen kind of teacher, or of all kinds."""
        super().format_help(ctx, formatter)
        from bootdiff.core.errors import choose
        from bootdiff.teaching.settings import KINDS, TeacherSettings

        kind = _chosen(ctx, "--kind", "")
        if not kind:
            print_settings("Settings of all kinds (--kind K --help: of one)", TeacherSettings)
        else:
            print_settings(f"Settings of kind {kind}", KINDS[choose(kind, KINDS, "kind")])


def print_settings(title: str, kind: Any) -> None:
    """Print every setting with its default and meaning."""
    from rich.console import Console
    from rich.table import Table

    from bootdiff.config.settings import describe

    table = Table(title=f"{title}, for YAML and --set", title_justify="left", box=None)
    for column in ("setting", "default", "meaning"):
        table.add_column(column)
    for row in describe(kind):
        table.add_row(*row)
    Console().print(table)


def _chosen(ctx: Any, option: str, default: str) -> str:
    """Return the value of an option, read from the typed words themselves."""
    args: list[str] = ctx.meta.get("bootdiff.args", [])
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return default

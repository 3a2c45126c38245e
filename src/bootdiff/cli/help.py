"""``--help`` of the training commands lists the settings; with ``--method M`` or ``--kind K`` those that it has."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class _Listing(TyperCommand):
    """A command whose help ends with settings."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words, because help is printed before they are parsed."""
        ctx.meta["bootdiff.args"] = list(args)
        return super().parse_args(ctx, args)


class DistillCommand(_Listing):
    """A command whose help ends with the settings of the chosen method."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and the settings."""
        super().format_help(ctx, formatter)
        from bootdiff.methods.registry import load_method, names

        method = _chosen(ctx, "--method", "boot")
        print_settings(f"Settings of method {method} (methods: {', '.join(names())})", load_method(method)[1])


class TeachCommand(_Listing):
    """A command whose help ends with the settings of teacher training: those of the chosen kind, or of all."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and the settings."""
        super().format_help(ctx, formatter)
        from bootdiff.core.errors import choose
        from bootdiff.teaching.settings import KINDS, TeacherSettings

        kind = _chosen(ctx, "--kind", "")
        if not kind:
            print_settings("Settings of all kinds (--kind K --help: of one)", TeacherSettings)
        else:
            print_settings(f"Settings of kind {kind}", KINDS[choose(kind, KINDS, "kind")])


def print_settings(title: str, kind: Any) -> None:
    """Every setting with its default and meaning."""
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
    """What an option says, read from the words themselves."""
    args: list[str] = ctx.meta.get("bootdiff.args", [])
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return default

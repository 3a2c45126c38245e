"""``--help`` of the training commands lists the settings; ``distill --method M --help`` lists M's."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class DistillCommand(TyperCommand):
    """A command whose help ends with the settings of the chosen method."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words, because help is printed before they are parsed."""
        ctx.meta["bootdiff.args"] = list(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and the settings."""
        super().format_help(ctx, formatter)
        from bootdiff.methods.registry import load_method, names

        method = _method(ctx.meta.get("bootdiff.args", []))
        print_settings(f"Settings of method {method} (methods: {', '.join(names())})", load_method(method)[1])


class TeachCommand(TyperCommand):
    """A command whose help ends with the settings of teacher training."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and the settings."""
        super().format_help(ctx, formatter)
        from bootdiff.teaching.settings import TeacherSettings

        print_settings("Settings", TeacherSettings)


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


def _method(args: list[str]) -> str:
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == "--method":
            return following
        if word.startswith("--method="):
            return word.partition("=")[2]
    return "boot"

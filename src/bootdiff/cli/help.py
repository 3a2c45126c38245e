"""``bootdiff distill --method M --help`` lists M's settings."""

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
        method = _method(ctx.meta.get("bootdiff.args", []))
        from rich.console import Console
        from rich.table import Table

        from bootdiff.objectives.registry import METHODS, load_method
        from bootdiff.training.settings import describe

        table = Table(title=f"Settings of method {method}, for YAML and --set", title_justify="left", box=None)
        for column in ("setting", "default", "meaning"):
            table.add_column(column)
        for row in describe(load_method(method)[1]):
            table.add_row(*row)
        console = Console()
        console.print(table)
        console.print(f"Methods: {', '.join(METHODS)}.")


def _method(args: list[str]) -> str:
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word == "--method":
            return following
        if word.startswith("--method="):
            return word.partition("=")[2]
    return "boot"

"""The group of commands: what is typed wrongly is one line, which says what is allowed, like every other mistake."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

USAGE_ERROR: Any = typer.BadParameter.__base__  # of the click that this typer brings or asks for


class CommandGroup(TyperGroup):
    """Mistakes in one line; in the list of commands, the whole first sentence of each."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        with _one_line() if args else contextlib.nullcontext():  # without any, the help is shown
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _one_line(ctx):  # a command's own options are read here
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, _first_sentence(self.commands[name].help or "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".") + "."


@contextlib.contextmanager
def _one_line(group: Any = None) -> Iterator[None]:
    """``group`` is the context of the group while a command of it is read."""
    try:
        yield
    except USAGE_ERROR as error:
        print(f"mathnas: {_words(error, group)}", file=sys.stderr)
        raise typer.Exit(2) from None


def _words(error: Any, group: Any) -> str:
    """What is wrong, and what is allowed: the names, where a name is wrong, else where that is said."""
    command = getattr(group, "invoked_subcommand", None)
    message = error.format_message().removeprefix("Invalid value for ").rstrip(".")
    if message.startswith("No such command"):
        found = message[1:].partition(". Did you mean")[0]  # all names follow
        return f"n{found}, expected one of: {', '.join(error.ctx.command.commands)}"
    if hasattr(error, "possibilities"):  # an option that there is not
        options = [name for each in error.ctx.command.get_params(error.ctx) for name in each.opts if name[0] == "-"]
        where = f"{command}: " if command else ""
        return f"{where}no such option {error.option_name}, expected one of: {', '.join(options)}"
    first, rest = message[0], message[1:]
    asked = f"mathnas {command}" if command else "mathnas"
    return f"{first.lower()}{rest}; `{asked} --help` says what is allowed"

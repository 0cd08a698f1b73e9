"""How a function becomes a command: its options, its examples and its help."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

__all__ = ["Command", "Group", "add_command", "examples", "expand"]


class Command(TyperCommand):
    """A command whose help names its arguments without their Python types."""

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]


class Group(TyperGroup):
    """A group of commands whose help is quick. Typer does not export the class of the contexts."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for parameter in self.get_params(ctx):
            if parameter.default is None:  # an unset flag of Typer's; to read None it would import Pydantic, 75 ms
                parameter.default = False
        return super().parse_args(ctx, args)


def add_command(app: typer.Typer, command: Callable[..., None], short_help: str | None, *lines: str) -> None:
    """Add a command to a group; `lines` are its examples, without "mura-search"."""
    name = command.__name__.strip("_")  # list_ and import_
    app.command(name, cls=Command, short_help=short_help, epilog=examples(*lines))(expand(command))


def examples(*lines: str) -> str:
    r"""The end of a help page: one example a line. `\b` keeps the lines as they are."""
    return "\n".join(
        ["Examples:" if len(lines) > 1 else "Example:", "", "\b", *(f"  mura-search {line}" for line in lines)]
    )


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer: each parameter that is a dataclass of options becomes one option a field.

    When Typer calls the result with the options, the dataclasses are made and `command` is called with them.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = parameter.annotation
        hints = get_type_hints(parameter.annotation, include_extras=True)
        for field in fields(parameter.annotation):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            option = inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default)
            parameters.append(option.replace(annotation=hints[field.name]))

    @wraps(command)
    def expanded(**options: Any) -> None:
        made = {
            name: group(**{field.name: options.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**options, **made)

    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return expanded

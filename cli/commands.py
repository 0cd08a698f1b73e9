"""How a function becomes a command: its options, its examples and its help."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

__all__ = ["Command", "Group", "Values", "add_command", "examples", "expand"]


class Values:
    """The values of a parameter: texts and paths, as they are given, and defaults.

    Typer converts all others, with Pydantic, which takes 65 ms to import: a tenth of a query.
    """

    def __init__(self, parameter: Any) -> None:
        annotation = parameter.type_descriptor.annotation
        self._convert = parameter.get_runtime_param
        self._several = get_origin(annotation) is list
        self._kind = get_args(annotation)[0] if self._several else annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command takes it; called by Typer."""
        given = list(value or ()) if self._several else [value]
        if self._kind in (str, Path):
            converted = [None if item is None else self._kind(item) for item in given]
        elif all(item is None or type(item) is self._kind for item in given):
            converted = given
        else:
            return self._convert().coerce(value, param=param, ctx=ctx)
        return converted if self._several else converted[0]


class Command(TyperCommand):
    """A command whose help names its arguments without their Python types, and whose options are read quickly."""

    def __init__(self, name: str | None, **options: Any) -> None:
        super().__init__(name, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]  # of this one alone

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _read_quickly(self.get_params(ctx))
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of commands whose options are read quickly."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _read_quickly(self.get_params(ctx))
        return super().parse_args(ctx, args)


def _read_quickly(parameters: Iterable[Any]) -> None:
    for parameter in parameters:
        if hasattr(parameter, "get_runtime_param"):  # in Typer 0.29; without it, a query is only slower
            values = Values(parameter)
            parameter.get_runtime_param = lambda values=values: values


def add_command(app: typer.Typer, command: Callable[..., None], short_help: str | None, *lines: str) -> None:
    """Add a command to a group; `lines` are its examples, without "mura-search"."""
    name = command.__name__.strip("_").replace("_", "-")  # list_, import_ and set_aside
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
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    return expanded

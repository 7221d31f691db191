"""Typed dataclasses from command-line arguments, with errors of one line."""

import contextlib
import io
import itertools
import re
from collections.abc import Iterable
from typing import TypeVar

import tyro

from sciml.errors import ConfigError
from sciml.registry import unknown_name

__all__ = ["parse", "print_table", "take_name"]

T = TypeVar("T")
BOX = "│╭╮╰╯─┃━ "


def parse(cls: type[T], prog: str, arguments: list[str], description: str, example: str) -> T:
    """Parse arguments into a dataclass; nested dataclasses share one flat set of flags.

    Raises
    ------
    ConfigError
        If they do not parse; the text is tyro's, on one line.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                cls,
                prog=prog,
                args=arguments,
                description=f"{description}\n\nexample:\n  {example}",
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        # The second line on are the message; a rule, of dashes where there is no other, separates it from the hints.
        lines = [line.strip(BOX) for line in errors.getvalue().splitlines()[1:]]
        lines = [line if line.strip("-") else "" for line in lines]
        # What a dataclass itself refuses names its setting.
        message = re.sub(r"^Error parsing [a-z_]+: ", "", " ".join(_until_blank(lines)))
        raise ConfigError(f"{message or 'the arguments cannot be parsed'} (see {prog} --help)") from None


def _until_blank(lines: list[str]) -> Iterable[str]:
    """The first lines that are not blank."""
    return itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines))


def take_name(arguments: list[str], kind: str, known: Iterable[str], usage: str, example: str) -> str | None:
    """Return the leading name of arguments, or None after printing help.

    Raises
    ------
    ConfigError
        If there is none, or it is not known.
    """
    names = sorted(known)
    if arguments and arguments[0] in ("-h", "--help"):
        # Up to the place of the name.
        command = usage[: usage.index(next(word for word in usage.split() if word.isupper()))].strip()
        print(f"usage: {usage}\n\n{kind}s: {', '.join(names)}\n")
        print(f"  {command} {names[0]} --help lists the options.\n\nexample:\n  {example}")
        return None
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError(f"name the {kind} first ({', '.join(names)}): {usage}")
    if arguments[0] not in names:
        raise unknown_name(kind, arguments[0], names)
    return arguments[0]


def print_table(head: list[str], rows: list[list[object]]) -> None:
    """Print aligned columns."""
    cells = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))

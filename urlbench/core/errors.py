"""Errors that are a user's to solve: one sentence each, with what, why and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input or the surroundings; shown without a traceback, exit code 2."""


class IncompleteError(UserError):
    """Results are missing or unusable; shown without a traceback, exit code 3."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "", see: str = "") -> UserError:
    """The error for a name that is not among the known ones, with the nearest suggestion.

    Args:
        kind: what was named, for example "task".
        name: what the user wrote.
        known: the valid names.
        where: completes "unknown task 'x'", for example "in suite 'urlb-states'".
        see: a command that lists the valid names.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"available: {', '.join(choices) or 'none'}."
    place = f" {where}" if where else ""
    return UserError(f"unknown {kind} {name!r}{place}; {hint}" + (f" See: {see}" if see else ""))

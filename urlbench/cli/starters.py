"""`urlbench new`: a working agent or suite in one file, and its test, to start one's own from."""

import importlib.util
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, NamedTuple

from urlbench.core import registry
from urlbench.core.durable import explained
from urlbench.core.errors import UserError

Backbone = Literal["ddpg", "dreamer"]
Kind = Literal["agent", "suite"]


class Starter(NamedTuple):
    """The files of a new agent or suite."""

    plugin: Path
    test: Path


def write_agent(name: str, folder: Path, backbone: Backbone = "ddpg") -> Starter:
    """Write an agent called `name`, rewarded for novelty in its pretraining, and its test.

    Args:
        name: as in `--agent`; the file is named alike, with underscores.
        folder: where to.
        backbone: what learns from the reward.

    Raises:
        UserError: if the name is taken or cannot be that of a Python file, or if a file is there already.
    """
    return _write("agent", name, folder, (f"{backbone}_agent.py.template", "agent_test.py.template"))


def write_suite(name: str, folder: Path) -> Starter:
    """Write a suite called `name`, three tasks of a point that is pushed, and its test.

    Args:
        name: as in `--suite`; the file is named alike, with underscores.
        folder: where to.

    Raises:
        UserError: if the name is taken or cannot be that of a Python file, or if a file is there already.
    """
    return _write("suite", name, folder, ("suite.py.template", "suite_test.py.template"))


def _write(kind: Kind, name: str, folder: Path, templates: tuple[str, str]) -> Starter:
    module = name.replace("-", "_")
    _check_name(kind, name, module)
    files = Starter(folder / f"{module}.py", folder / f"test_{module}.py")
    for path in files:
        if path.exists():
            raise UserError(f"{path} exists and is not overwritten; remove it, or choose another name.")
    # Only now: a file in this folder would be found, too.
    if importlib.util.find_spec(module) is not None:
        raise UserError(f"{module}.py would hide the Python module {module!r}; choose another name than {name!r}.")
    words = {"name": name, "module": module}
    for path, template in zip(files, templates, strict=True):
        source = resources.files("urlbench.cli") / "templates" / template
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(Template(source.read_text(encoding="utf-8")).substitute(words))
        except OSError as error:
            raise explained(error, path, "run the same command again") from error
    return files


def _check_name(kind: Kind, name: str, module: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) is None or keyword.iskeyword(module):
        raise UserError(
            f"{name!r} cannot name {'an agent' if kind == 'agent' else 'a suite'} and its Python file; "
            "write lower-case words, digits and single hyphens, such as my-agent."
        )
    taken = registry.names(kind)
    if name in taken:
        raise UserError(f"{kind} {name!r} is registered already ({taken[name]}); choose another name.")

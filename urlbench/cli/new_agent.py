"""`urlbench new agent`: a working agent in one file, and its test, to start one's own from."""

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


class NewAgent(NamedTuple):
    """The files of a new agent."""

    agent: Path
    test: Path


def write_agent(name: str, folder: Path, backbone: Backbone = "ddpg") -> NewAgent:
    """Write an agent called `name`, rewarded for novelty in its pretraining, and its test.

    Args:
        name: as in `--agent`; the file is named alike, with underscores.
        folder: where to.
        backbone: what learns from the reward.

    Raises:
        UserError: if the name is taken or cannot be that of a Python file, or if a file is there already.
    """
    module = name.replace("-", "_")
    _check_name(name, module)
    files = NewAgent(folder / f"{module}.py", folder / f"test_{module}.py")
    for path in files:
        if path.exists():
            raise UserError(f"{path} exists and is not overwritten; remove it, or choose another name.")
    # Only now: a file in this folder would be found, too.
    if importlib.util.find_spec(module) is not None:
        raise UserError(f"{module}.py would hide the Python module {module!r}; choose another name than {name!r}.")
    words = {"name": name, "module": module}
    templates = resources.files("urlbench.cli") / "templates"
    for path, template in zip(files, (f"{backbone}_agent.py.template", "agent_test.py.template"), strict=True):
        text = Template((templates / template).read_text(encoding="utf-8")).substitute(words)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise explained(error, path, "run the same command again") from error
    return files


def _check_name(name: str, module: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) is None or keyword.iskeyword(module):
        raise UserError(
            f"{name!r} cannot name an agent and its Python file; "
            "write lower-case words, digits and single hyphens, such as my-agent."
        )
    taken = registry.names("agent")
    if name in taken:
        raise UserError(f"agent {name!r} is registered already ({taken[name]}); choose another name.")

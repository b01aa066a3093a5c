"""Suites and agents by name, loaded only when asked for.

A name maps to a lazy `module:attribute` string, so listing needs neither torch nor MuJoCo. Third parties
add names through the entry points `urlbench.agents` and `urlbench.suites`, or with `--plugin`: a module
name or a Python file that calls `register_agent` or `register_suite`.
"""

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urlbench.core import exorl
from urlbench.core.errors import UserError, unknown_name

if TYPE_CHECKING:
    from urlbench.core.interfaces import AgentSpec, Environment
    from urlbench.core.types import ImageFormat, Suite


@dataclass(frozen=True)
class Entry:
    """A registered name.

    Attributes:
        target: lazy `module:attribute` string, or the object itself.
        description: one line for `urlbench list`.
        origin: where the name comes from, for the message about duplicates.
    """

    target: Any
    description: str
    origin: str


_SUITES: dict[str, Entry] = {
    "urlb-states": Entry(
        "urlbench.suites.dmc.urlb_states:SUITE",
        "12 locomotion and reaching tasks from proprioceptive states (walker, quadruped, jaco)",
        "urlbench",
    ),
    "urlb-pixels": Entry(
        "urlbench.suites.dmc.urlb_pixels:SUITE",
        "12 locomotion and reaching tasks from 64x64 images (walker, quadruped, jaco)",
        "urlbench",
    ),
    "jaco-sparse": Entry(
        "urlbench.suites.dmc.jaco_sparse:SUITE",
        "4 targets that a pretrained Jaco arm, seen in 64x64 images, has to find without learning any more",
        "urlbench",
    ),
    "metaworld-reach": Entry(
        "urlbench.suites.metaworld.metaworld_reach:PIXELS",
        "sets of 50 goals that a pretrained Sawyer arm, seen in 64x64 images, has to find without learning any more",
        "urlbench",
    ),
    "metaworld-reach-states": Entry(
        "urlbench.suites.metaworld.metaworld_reach:STATES",
        "sets of 50 goals that a pretrained Sawyer arm has to find from states, without learning any more",
        "urlbench",
    ),
    **{
        exorl.suite_name(collection): Entry(
            f"urlbench.suites.dmc.urlb_offline:{collection.upper()}", exorl.suite_description(collection), "urlbench"
        )
        for collection in exorl.METHODS
    },
}
_AGENTS: dict[str, Entry] = {
    "choreographer": Entry(
        "urlbench.agents.choreographer.choreographer:SPEC",
        "world model, codebook of skills learned in imagination, meta-controller (Mazzaglia et al. 2023)",
        "urlbench",
    ),
    "choreographer-no-resampling": Entry(
        "urlbench.agents.choreographer.ablations:NO_RESAMPLING",
        "Choreographer whose unused codes stay unused (ablation)",
        "urlbench",
    ),
    "choreographer-single-skill": Entry(
        "urlbench.agents.choreographer.ablations:SINGLE_SKILL",
        "Choreographer that fine-tunes its best skill, without a meta-controller (ablation)",
        "urlbench",
    ),
    "choreographer-zero-shot": Entry(
        "urlbench.agents.choreographer.ablations:ZERO_SHOT",
        "Choreographer whose skills stay as they were pretrained (ablation)",
        "urlbench",
    ),
    "edl-dreamer": Entry(
        "urlbench.agents.choreographer.ablations:EDL_DREAMER",
        "skills discovered among observations, in imagination: EDL with a world model (ablation)",
        "urlbench",
    ),
    "latent-edl": Entry(
        "urlbench.agents.choreographer.ablations:LATENT_EDL",
        "skills discovered among model states, without an entropy reward (ablation)",
        "urlbench",
    ),
    "aps": Entry("urlbench.agents.ddpg.aps:SPEC", "DDPG with successor features of an entropy reward", "urlbench"),
    "apt": Entry("urlbench.agents.ddpg.apt:SPEC", "DDPG rewarded by the entropy of dynamics features", "urlbench"),
    "cic": Entry("urlbench.agents.ddpg.cic:SPEC", "DDPG with continuous skills: contrastive, entropy", "urlbench"),
    "ddpg": Entry("urlbench.agents.ddpg.ddpg:SPEC", "DDPG with twin critics, no pretraining", "urlbench"),
    "diayn": Entry("urlbench.agents.ddpg.diayn:SPEC", "DDPG with skills that can be told apart", "urlbench"),
    "disagreement": Entry(
        "urlbench.agents.ddpg.disagreement:SPEC", "DDPG rewarded by the disagreement of dynamics models", "urlbench"
    ),
    "dreamer": Entry("urlbench.agents.dreamer.dreamer:SPEC", "Dreamer, no pretraining", "urlbench"),
    "dreamer-aps": Entry(
        "urlbench.agents.dreamer.aps:SPEC", "Dreamer pretrained with successor features of entropy", "urlbench"
    ),
    "dreamer-apt": Entry(
        "urlbench.agents.dreamer.apt:SPEC", "Dreamer pretrained by the entropy of imagined states", "urlbench"
    ),
    "dreamer-diayn": Entry(
        "urlbench.agents.dreamer.diayn:SPEC", "Dreamer pretrained with skills that can be told apart", "urlbench"
    ),
    "dreamer-icm": Entry(
        "urlbench.agents.dreamer.icm:SPEC", "Dreamer pretrained by the error of a dynamics model", "urlbench"
    ),
    "dreamer-lbs": Entry(
        "urlbench.agents.dreamer.lbs:SPEC", "Dreamer pretrained by latent Bayesian surprise", "urlbench"
    ),
    "dreamer-p2e": Entry(
        "urlbench.agents.dreamer.plan2explore:SPEC", "Dreamer pretrained by the disagreement of models", "urlbench"
    ),
    "dreamer-random": Entry("urlbench.agents.dreamer.random:SPEC", "Dreamer pretrained by random actions", "urlbench"),
    "dreamer-rnd": Entry(
        "urlbench.agents.dreamer.rnd:SPEC", "Dreamer pretrained by predicting a random network", "urlbench"
    ),
    "icm": Entry("urlbench.agents.ddpg.icm:SPEC", "DDPG rewarded by the error of a dynamics model", "urlbench"),
    "proto": Entry("urlbench.agents.ddpg.proto:SPEC", "DDPG rewarded by the distance to prototypes", "urlbench"),
    "rnd": Entry("urlbench.agents.ddpg.rnd:SPEC", "DDPG rewarded by predicting a random network", "urlbench"),
    "smm": Entry("urlbench.agents.ddpg.smm:SPEC", "DDPG with skills rewarded by the rarity of states", "urlbench"),
    "random": Entry("urlbench.agents.random:SPEC", "uniform random actions, no learning", "urlbench"),
}
_loaded_entry_points: set[str] = set()


def _table(kind: str) -> dict[str, Entry]:
    table = {"suite": _SUITES, "agent": _AGENTS}[kind]
    group = f"urlbench.{kind}s"
    if group not in _loaded_entry_points:
        _loaded_entry_points.add(group)
        for point in entry_points(group=group):
            _register(kind, point.name, Entry(point.value, "", f"entry point {point.value}"))
    return table


def _register(kind: str, name: str, entry: Entry) -> None:
    table = _table(kind)
    if name in table:
        raise UserError(
            f"{kind} {name!r} is registered twice, by {table[name].origin} and by {entry.origin}; rename one of them."
        )
    table[name] = entry


def register_agent(spec: "AgentSpec") -> None:
    """Make `spec` known by its name; UserError if the name is taken."""
    _register("agent", spec.name, Entry(spec, spec.description, f"plugin {spec.config.__module__}"))


def register_suite(suite: "Suite") -> None:
    """Make `suite` known by its name; UserError if the name is taken."""
    _register("suite", suite.name, Entry(suite, suite.description, "plugin"))


def names(kind: str) -> dict[str, str]:
    """Name to one-line description of every registered `suite` or `agent`; imports none of them."""
    return {name: entry.description for name, entry in sorted(_table(kind).items())}


def load_attribute(target: str) -> Any:
    """Import `module:attribute`."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load(kind: str, name: str) -> Any:
    table = _table(kind)
    if name not in table:
        raise unknown_name(kind, name, table, see=f"urlbench list {kind}s")
    target = table[name].target
    return load_attribute(target) if isinstance(target, str) else target


def load_suite(name: str) -> "Suite":
    """The suite of that name; UserError with a suggestion if there is none."""
    # Here and not above: pydantic and NumPy would double the time of `urlbench list`.
    from urlbench.core.types import Suite

    suite = _load("suite", name)
    assert isinstance(suite, Suite), f"{name!r} is registered as a suite but is a {type(suite).__name__}"
    return suite


def make_environment(
    suite: "Suite", task: str, seed: int, *, image: "ImageFormat | None" = None, goal_set: int | None = None
) -> "Environment":
    """The environment of one of a suite's tasks, its random stream started from `seed` in [0, 2^32).

    Args:
        suite: whose.
        task: name of the task.
        seed: of the stream.
        image: what is drawn for a suite seen in pixels; None draws nothing.
        goal_set: number of the goals, in a suite that has sets of them.
    """
    options: dict[str, Any] = {"image": image} if suite.observation == "pixels" else {}
    if suite.goal_sets is not None:
        options["goal_set"] = goal_set
    environment: Environment = load_attribute(suite.environment)(task, seed, suite.action_repeat, **options)
    return environment


def load_agent(name: str) -> "AgentSpec":
    """The agent of that name; UserError with a suggestion if there is none."""
    from urlbench.core.interfaces import AgentSpec

    spec = _load("agent", name)
    assert isinstance(spec, AgentSpec), f"{name!r} is registered as an agent but is a {type(spec).__name__}"
    return spec


def load_plugin(plugin: str) -> None:
    """Import a plugin, a Python file or a module name, once; it registers what it brings.

    Raises:
        UserError: if there is no such file or module, or if importing it fails.
    """
    path = Path(plugin)
    is_file = plugin.endswith(".py")
    name = f"urlbench_plugin_{path.stem}" if is_file else plugin
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if is_file and loaded is not None and Path(loaded).resolve() != path.resolve():
        # Two files of one name are two plugins.
        name += f"_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    if is_file and not path.is_file():
        raise UserError(f"plugin file {plugin!r} does not exist; give --plugin a .py file or a module name.")
    try:
        if is_file:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
        else:
            importlib.import_module(name)
    except UserError:
        raise
    except Exception as error:
        sys.modules.pop(name, None)
        raise UserError(f"plugin {plugin!r} fails to import: {type(error).__name__}: {error}") from error

"""Every agent's published settings are hashed as they were when results were made with them."""

import pytest

from urlbench.core import registry
from urlbench.core.config import plain_values, resolve_config
from urlbench.core.identity import config_hash
from urlbench.core.registry import load_agent

HASHES = {
    "aps": "12cde68c",
    "apt": "538c96aa",
    "choreographer": "b1c2336e",
    "choreographer-no-resampling": "80109276",
    "choreographer-single-skill": "96d1031f",
    "choreographer-zero-shot": "b1c2336e",
    "cic": "8d0e1c0c",
    "ddpg": "90049d03",
    "diayn": "e8b4fce6",
    "disagreement": "b73d7b9e",
    "dreamer": "94aca2f5",
    "dreamer-aps": "6cca8afe",
    "dreamer-apt": "a772f59b",
    "dreamer-diayn": "0ef7ff16",
    "dreamer-icm": "acadba6e",
    "dreamer-lbs": "3a301e9e",
    "dreamer-p2e": "60a64bf1",
    "dreamer-random": "94aca2f5",
    "dreamer-rnd": "3eebbadd",
    "edl-dreamer": "e7313038",
    "icm": "031496a2",
    "latent-edl": "e7313038",
    "proto": "861c4ad9",
    "random": "44136fa3",
    "rnd": "fc5e5e53",
    "smm": "c64449b4",
}


def test_no_agent_is_missing_here() -> None:
    assert HASHES.keys() == {name for name, entry in registry._AGENTS.items() if entry.origin == "urlbench"}


@pytest.mark.parametrize("agent", HASHES)
def test_no_published_setting_has_changed(agent: str) -> None:
    assert config_hash(plain_values(resolve_config(load_agent(agent), "paper"))) == HASHES[agent]

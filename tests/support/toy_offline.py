"""A suite that pretrains the toy agent from a data set, for `--plugin` beside `toy_plugin.py`; and such data sets."""

import json
from pathlib import Path

import numpy as np

from urlbench.core.registry import load_plugin, load_suite, register_suite
from urlbench.core.types import ArrayFormat, Protocol, Suite
from urlbench.episodes.datasets import DatasetIndex, Origin, describe_file, episode_files, write_index
from urlbench.episodes.replay import Replay

FOLDER = Path(__file__).parent.resolve()
PLUGINS = (str(FOLDER / "toy_plugin.py"), str(FOLDER / "toy_offline.py"))
COLLECTION, EPISODE_STEPS = "toys", 20


def write_toys(root: Path, domain: str = "ball", episodes: int = 8, shift: float = 0.0, steps: int = 20) -> Path:
    """A data set of noise in the toy's shapes below `root`; its folder."""
    from urlbench.core.interfaces import TimeStep

    folder = root / domain / COLLECTION
    folder.mkdir(parents=True)
    replay, rng = Replay(folder / "buffer", (4,), np.float32, 2, 10_000), np.random.default_rng(0)
    for _ in range(episodes):
        replay.add(TimeStep(rng.normal(size=4) + shift, 0.0, 1.0, True, False))
        for step in range(1, steps + 1):
            action = rng.uniform(-1, 1, 2).astype(np.float32)
            replay.add(TimeStep(rng.normal(size=4) + shift, rng.normal(), 1.0, False, step == steps), action)
    index = DatasetIndex(
        domain=domain,
        collection=COLLECTION,
        origin=Origin(kind="imported", source="noise"),
        arrays={"observation": ArrayFormat(shape=(4,), dtype="float32")},
        files=tuple(map(describe_file, episode_files(folder / "buffer"))),
    )
    write_index(folder, index)
    return folder


def _protocol(preset: str, updates: int, transitions: int) -> Protocol:
    return Protocol(
        preset=preset,
        description="tiny",
        pretrain_updates=updates,
        data_transitions=transitions,
        snapshots=(updates // 2, updates),
        finetune_frames=80,
        eval_every_frames=20,
        eval_episodes=3,
    )


def _register() -> None:
    load_plugin(PLUGINS[0])
    toys = load_suite("toy-states")
    changes = {
        "name": "toy-offline",
        "description": "a point on a line, from data",
        "collection": COLLECTION,
        "protocols": {one.preset: one for one in (_protocol("paper", 230, 160), _protocol("smoke", 30, 90))},
    }
    register_suite(Suite.model_validate({**json.loads(toys.model_dump_json()), **changes}))


if __name__ == "urlbench_plugin_toy_offline":
    _register()

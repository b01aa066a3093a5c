"""Searches settings of `small`: what keeps actors alive, tells skills apart and lets a model know its body.

    python benchmarks/reduced_preset.py --runs runs --settings today,centred-slow --seeds 0 --output found.json
    python benchmarks/reduced_preset.py --runs runs --settings centred-slow --seeds 0 --finetune stand,walk
    python benchmarks/reduced_preset.py --show found.json

Each setting is an ordinary `urlbench run` of a whole pretraining in a folder of its own below --runs, so the search
goes on where it was stopped. Settings are judged by what train.jsonl says of the training and by the last snapshot,
not by scores; --finetune adds these, to see that nothing was broken.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import reporting
import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.choreographer.discovery import SkillDiscovery
from urlbench.agents.common import acting
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.world_model import WorldModel
from urlbench.core.durable import read_jsonl
from urlbench.core.interfaces import Cell, CoveredEnvironment, Environment
from urlbench.core.jobs import Job
from urlbench.runs.store import RunDirectory, RunStore
from urlbench.training.assembly import build_environment, build_untrained_agent, set_up_torch
from urlbench.training.checkpoint import SnapshotHeader, load_snapshot, snapshot_path

SUITE, DOMAIN, AGENT = "urlb-states", "walker", "choreographer"
HEIGHT, HIGH = 14, 0.7  # the torso's place among what is observed; m
SKILL_STEPS, SKILLS, EXPLORED_STEPS = 200, 16, 500
LAST = 5  # episodes that count as the end of a pretraining

_CENTRED = ("actor_critic.centred_rewards=true",)
_SEEN = ("world_model.standardise_states=true",)
_RESAMPLED = ("skills.resample_every=20",)
_SKILLS = ("skill_discount=0.8", *_RESAMPLED)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "today": (),
    "skill-discount": (*_SEEN, *_SKILLS, "actor_critic.actor_lr=3e-4"),
    "centred-fast": (*_SEEN, *_SKILLS, *_CENTRED, "actor_critic.actor_lr=3e-4"),
    "centred-slow": (*_SEEN, *_SKILLS, *_CENTRED, "actor_critic.actor_lr=1e-4"),
    "short-sighted": (*_SEEN, *_RESAMPLED, "actor_critic.discount=0.8", "actor_critic.actor_lr=3e-4"),
}
"""What each setting changes in the preset."""

COLUMNS = {
    "skill_saturation": "skill means saturated",
    "exploration_saturation": "explorer's",
    "own": "own code",
    "other": "another's",
    "idle": "idle",
    "unused": "unused codes",
    "height_r2": "height R²",
    "cells": "cells explored",
    "high": "explorer above 0.7 m",
    "stand": "stand return of exploration",
    "skill_cells": "cells of 16 skills",
    "own_rank": "own code's rank of 16",
}


@dataclass
class Judgement:
    """What became of one pretraining.

    Attributes:
        commit: of the code that has trained.
        training: means over the last episodes of what train.jsonl holds, and the cells visited.
        snapshot: what the agent at the end can do.
        curve: of the training's measures, by episode.
        returns: of fine-tunings, by task and frame.
    """

    setting: str
    seed: int
    changes: tuple[str, ...]
    commit: str
    updates: int
    training: dict[str, float]
    snapshot: dict[str, float]
    curve: list[dict[str, float]]
    returns: dict[str, dict[str, float]]


def pretrain_and_finetune(changes: Sequence[str], seed: int, runs: Path, preset: str, finetune: Sequence[str]) -> None:
    """An ordinary run of Choreographer, fine-tuned on tasks of the walker."""
    command = [sys.executable, "-m", "urlbench", "run", "--suite", SUITE, "--agent", AGENT, "--preset", preset]
    command += ["--domains", DOMAIN, "--seeds", f"{seed}-{seed}", "--workers", "1", "--threads", "1"]
    command += ["--runs", str(runs), *(word for change in changes for word in ("-o", f"{AGENT}.{change}"))]
    tasks = [word for task in finetune for word in ("--tasks", f"{DOMAIN}_{task}")]
    command += ["--phase", "all", *tasks] if finetune else ["--phase", "pretrain"]
    subprocess.run(command, check=True, stdout=sys.stderr)


def jobs_of(runs: Path, seed: int) -> list[tuple[Job, RunDirectory]]:
    """The pretraining of that seed in the folder, then what started from it."""
    jobs = [(directory.read_job(runs), directory) for directory in RunStore(runs).directories()]
    return sorted(
        (pair for pair in jobs if pair[0].spec.seed == seed), key=lambda pair: pair[0].spec.phase != "pretrain"
    )


def judge(setting: str, seed: int, runs: Path) -> Judgement:
    """Look at a pretraining; at one that is not finished, only at what it has written so far."""
    (job, directory), *others = jobs_of(runs, seed)
    rows = list(read_jsonl(directory.train_file))
    returns = {
        one.spec.task.removeprefix(f"{DOMAIN}_"): {
            str(row["frame"]): row["mean"] for row in read_jsonl(where.eval_file)
        }
        for one, where in others
    }
    return Judgement(
        setting=setting,
        seed=seed,
        changes=SETTINGS[setting],
        commit=json.loads(directory.manifest_file.read_text(encoding="utf-8"))["git"]["commit"],
        updates=rows[-1]["updates"],
        training=at_the_end(rows),
        snapshot=look(job, directory) if directory.is_done() else {},
        curve=curve(rows),
        returns=returns,
    )


MEASURES = {
    "skill_saturation": "measured_saturation",
    "exploration_saturation": "exploration_saturation",
    "own": "measured_own_code_reward",
    "other": "measured_other_code_reward",
    "idle": "measured_idle_code_reward",
    "unused": "unused_codes",
    "stand": "return",
}


def at_the_end(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of the last episodes, and all cells that were visited."""
    ended = {}
    for name, column in MEASURES.items():
        if seen := [row[column] for row in rows[-LAST:] if column in row]:
            ended[name] = statistics.fmean(seen)
    return ended | ({"cells": rows[-1]["cells"]} if "cells" in rows[-1] else {})


def curve(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The measures of every episode."""
    columns = {"updates": "updates", "cells": "cells", **MEASURES}
    return [{name: row[column] for name, column in columns.items() if column in row} for row in rows]


# --- The agent at the end ---------------------------------------------------------------------------


def pretrained(job: Job, directory: RunDirectory) -> tuple[SkillDiscovery, Environment]:
    """The agent at the end of its pretraining, and the environment of that."""
    environment, frames = build_environment(job.spec), job.spec.protocol.pretrain_frames
    agent = build_untrained_agent(job.spec, environment, "cpu")
    header = SnapshotHeader.of(job.spec, frames)
    agent.load_state_dict(load_snapshot(snapshot_path(directory.path, frames), header))
    assert isinstance(agent, SkillDiscovery), "only Choreographer and its ablations have skills to look at"
    return agent, environment


@torch.no_grad()
def look(job: Job, directory: RunDirectory) -> dict[str, float]:
    """What the model knows of the torso's height while exploring, and where skills lead with mean actions."""
    agent, environment = pretrained(job, directory)
    explorer, draws = acting.normal_policy(agent.explorer.actor), Draws(0)

    def explore(feat: Tensor) -> Tensor:
        action = explorer(feat)
        return action.sample(draws.action_noise(action.mean))

    explored = [play(agent, environment, start, EXPLORED_STEPS, explore) for start in range(2)]
    policy, goals = acting.normal_policy(agent.skill_policy.actor), agent.skills.decoder(agent.skills.codebook.codes)
    ranks, cells = [], []
    for skill in range(SKILLS):
        onehot = F.one_hot(torch.tensor([skill]), len(goals)).float()

        def follow(feat: Tensor, onehot: Tensor = onehot) -> Tensor:
            return policy(torch.cat([feat, onehot], -1)).mean

        followed = play(agent, environment, 0, SKILL_STEPS, follow)
        late = followed.deter[SKILL_STEPS // 2 :]
        distance = torch.linalg.vector_norm(goals[:SKILLS, None] - late, dim=-1).mean(1)
        ranks.append(int((distance < distance[skill]).sum()))
        cells.append(set(followed.cells))
    return {
        "height_r2": height_r2(agent.world_model, explored),
        "high": statistics.fmean(float(one.observation[:, HEIGHT].gt(HIGH).float().mean()) for one in explored),
        "skill_cells": len(set.union(*cells)),
        "cells_a_skill": statistics.fmean(map(len, cells)),
        "own_rank": statistics.fmean(ranks),
    }


class Played(NamedTuple):
    """T steps in the environment.

    Attributes:
        observation: [T, O].
        feat: [T, F].
        deter: [T, D].
        cells: of the states.
    """

    observation: Tensor
    feat: Tensor
    deter: Tensor
    cells: list[Cell]


def play(
    agent: SkillDiscovery, environment: Environment, start: int, steps: int, policy: Callable[[Tensor], Tensor]
) -> Played:
    """Act from the start state that is drawn with the seed `start`."""
    assert isinstance(environment, CoveredEnvironment), "the walker's states have cells"
    environment.reseed(start)
    model, draws, timestep = agent.world_model, Draws(start), environment.reset()
    state, action = model.rssm.initial(1), torch.zeros(1, environment.action_dim)
    seen, states, cells = [], [], []
    for _ in range(steps):
        seen.append(torch.as_tensor(timestep.observation)[None])
        first = torch.tensor([timestep.is_first])
        state = model.rssm.observe_step(state, action, model.embed(seen[-1]), first, draws)
        states.append(state)
        cells.append(environment.cell())
        action = policy(state.feat)
        timestep = environment.step(action[0].numpy())
    feat, deter = torch.cat([one.feat for one in states]), torch.cat([one.deter for one in states])
    return Played(torch.cat(seen), feat, deter, cells)


def height_r2(model: WorldModel, played: Sequence[Played]) -> float:
    """Share of the torso's height's variance that the decoder explains."""
    target = model.seen(torch.cat([one.observation for one in played]))[:, HEIGHT]
    error = model.decoder(torch.cat([one.feat for one in played]))[:, HEIGHT] - target
    return float(1 - error.square().mean() / target.var(correction=0))


# --- The table --------------------------------------------------------------------------------------


def table(judgements: Sequence[Judgement]) -> str:
    """In Markdown."""
    tasks = sorted({task for one in judgements for task in one.returns})
    rows = []
    for one in judgements:
        found = one.training | one.snapshot
        cells = ["" if name not in found else f"{found[name]:.3g}" for name in COLUMNS]
        returns = [" / ".join(f"{mean:.0f}" for mean in one.returns.get(task, {}).values()) for task in tasks]
        rows.append([one.setting, str(one.seed), str(one.updates), *cells, *returns])
    return reporting.markdown_table(["setting", "seed", "updates", *COLUMNS.values(), *tasks], rows)


def main() -> None:
    """Run what is not done yet, judge it, print the table, write the numbers with what they were made on."""
    parser = argparse.ArgumentParser(description="Searches settings of a reduced preset.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (%(default)s)")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="names with commas between them (%(default)s)")
    parser.add_argument("--seeds", default="0", help="numbers with commas between them (%(default)s)")
    parser.add_argument("--preset", default="small", help="that is changed (%(default)s)")
    parser.add_argument("--finetune", default="", help="tasks of the walker, with commas between them (none)")
    parser.add_argument("--judge", action="store_true", help="run nothing, judge what is done")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--show", type=Path, help="print the table of such a file and do nothing else")
    given = parser.parse_args()
    if given.show is not None:
        rows = json.loads(given.show.read_text(encoding="utf-8"))["judgements"]
        print(table([Judgement(**row) for row in rows]))
        return
    set_up_torch("cpu", 1)
    machine, judgements = reporting.describe_machine(threads=1), []
    for setting in given.settings.split(","):
        for seed in map(int, given.seeds.split(",")):
            folder = given.runs / setting
            if not given.judge:
                tasks = given.finetune.split(",") if given.finetune else []
                pretrain_and_finetune(SETTINGS[setting], seed, folder, given.preset, tasks)
            judgements.append(judge(setting, seed, folder))
            print(table(judgements), flush=True)
    if given.output is not None:
        found = {"machine": machine, "judgements": [asdict(one) for one in judgements]}
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

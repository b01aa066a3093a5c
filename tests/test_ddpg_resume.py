"""Interrupted runs of DDPG agents continue bit for bit: skills in the replay, solved tasks and queues included."""

from pathlib import Path

import pytest
import torch
from toy_runs import assert_same_run, run, run_both, toy_jobs

torch.set_num_threads(1)

# So many updates and skills that each stop falls into the middle of something.
OVERRIDES = ("agent.update_every_steps=3", "agent.seed_frames=25", "agent.batch_size=8")
OF_AGENT = {
    "rnd": (),
    "proto": (),
    "smm": (),
    "diayn": ("agent.skill_steps=7",),
    "cic": ("agent.skill_steps=7",),
    "aps": ("agent.skill_steps=7", "agent.task_frames=30", "agent.task_samples=24"),
}


class StopEvery:
    """Asks to stop at every n-th question."""

    def __init__(self, questions: int) -> None:
        self.questions, self.asked = questions, 0

    def __call__(self) -> str:
        self.asked += 1
        return "" if self.asked % self.questions else "stopped by the test"


@pytest.mark.parametrize(
    "agent", [pytest.param(agent, marks=[] if agent == "aps" else [pytest.mark.slow]) for agent in OF_AGENT]
)
def test_a_stopped_run_continues_bit_for_bit(agent: str, tmp_path: Path) -> None:
    choices = {"agent": agent, "overrides": OVERRIDES + OF_AGENT[agent]}
    expected = run_both(tmp_path / "whole", **choices)
    root = tmp_path / "stopped"
    for (job, directory), whole in zip(toy_jobs(root, **choices), expected, strict=True):
        # A run that is stopped inside an evaluation takes it from its start, so later attempts must get further.
        attempts = next(n for n in range(20) if run(root, job, directory, stop=StopEvery(17 + 13 * n)) == "done")
        assert attempts >= 2
        assert_same_run(directory, whole)

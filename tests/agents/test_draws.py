"""Draws, and the schedule of skills."""

import torch
from agent_factory import stored

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.skills import SkillSchedule


def test_draws_follow_the_probabilities() -> None:
    draws, probs = Draws(0), torch.tensor([0.1, 0.0, 0.6, 0.3])
    for draw in (draws.latent, draws.skill):
        counts = torch.bincount(draw(probs.expand(20_000, -1)), minlength=4) / 20_000
        torch.testing.assert_close(counts, probs, atol=0.02, rtol=0)
    rows = torch.stack([draws.row(3 * probs) for _ in range(2000)])
    torch.testing.assert_close(torch.bincount(rows, minlength=4) / 2000, probs, atol=0.05, rtol=0)
    noise = draws.action_noise(torch.zeros(20_000))
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03


def test_a_class_of_probability_zero_is_never_drawn() -> None:
    probs = torch.tensor([0.0, 0.5, 0.5, 0.0]).expand(50_000, -1)
    assert set(Draws(0).latent(probs).tolist()) == {1, 2}


def test_draws_go_on_where_they_were_saved() -> None:
    draws, other, mean = Draws(0), Draws(1), torch.zeros(4)
    draws.action_noise(mean)
    other.load_state_dict(stored(draws.state_dict()))
    assert torch.equal(draws.action_noise(mean), other.action_noise(mean))


def test_skills_change_at_episode_starts_and_periodically() -> None:
    numbers = iter(range(10))
    schedule = SkillSchedule(lambda: next(numbers), every=3)
    assert schedule.skill is None
    schedule.at_episode_start()
    seen = [schedule.skill]
    for step in range(1, 8):
        schedule.at_step(step)
        seen.append(schedule.skill)
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2]

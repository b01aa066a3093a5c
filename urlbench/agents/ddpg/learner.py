"""What both phases of a DDPG agent share.

Source: the protocol of Laskin et al. 2021 (URLB), sec. 4, and its released code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from urlbench.agents.common import acting
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.learner import Learner
from urlbench.agents.common.skills import SkillSchedule
from urlbench.agents.common.world_model import preprocess, to_tensors
from urlbench.agents.ddpg.backbone import (
    Backbone,
    DDPGConfig,
    Transitions,
    make_schedule,
    n_step_transitions,
    noise_std,
)
from urlbench.agents.ddpg.networks import SHIFT_PAD, acting_policy, random_shift
from urlbench.agents.ddpg.skills import Skills
from urlbench.core.interfaces import Actor, AgentContext, Array
from urlbench.core.seeding import derive_seed


class DDPGLearner(Learner):
    """What both phases share.

    Args:
        context: where it lives.
        config: settings.
        nstep: of its samples.
        skills: what its actors follow; None if there are none.
        trains_encoder: from pixels, the critic's loss trains the encoder.
        successor: see `Method`.

    Attributes:
        steps: agent steps so far, as the training actor was last told.
    """

    def __init__(
        self,
        context: AgentContext,
        config: DDPGConfig,
        *,
        nstep: int,
        skills: Skills | None,
        trains_encoder: bool,
        successor: bool,
    ) -> None:
        super().__init__(context)
        self.config, self.skills = config, skills
        self.schedule = make_schedule(config, context, nstep)
        self.steps = 0
        dim = 0 if skills is None else skills.space.dim
        self.backbone = self.component(
            "backbone", lambda: Backbone(context, config, skill_dim=dim, successor=successor)
        )
        self._optimisers = self.backbone.make_optimisers(trains_encoder=trains_encoder)
        self.components |= {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        if skills is not None:
            self.recorded = {"skill": (skills.space.dim,)}
            self.components["skills"] = skills.to(context.device)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the actions' noise at this point of the training."""
        return noise_std(self.config.exploration_std, self.steps)

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """Noisy, with changing skills; in evaluation the policy's mean and, as released, one skill throughout."""
        draws = self.actor_draws(seed)
        if evaluation:
            return DDPGActor(self, draws, noisy=False, keeps_skill=True)
        every = None if self.skills is None else self.skills.space.every
        return DDPGActor(self, draws, noisy=True, trains=True, skill_steps=every)

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """Skills change at episode starts and every `skill_steps`."""
        draws = self.actor_draws(seed)
        return DDPGActor(self, draws, noisy=sample, skill_steps=skill_steps)

    def encode(self, observation: Tensor) -> Tensor:
        """Features [N, F] of observations as the environment gives them."""
        return self.backbone.encoder(preprocess(observation))

    def transitions(self, batch: Mapping[str, Array], *, gradients: bool) -> Transitions:
        """The batch, encoded; from pixels, images are shifted at random and `gradients` may reach the encoder."""
        skill: Any = getattr(self.config, "sampled_skill", "previous")
        raw = n_step_transitions(to_tensors(batch, self.context.device), self.config.discount, skill)
        if self.context.observation_kind == "states":
            return raw
        image, next_image = (
            preprocess(random_shift(image, self._draws.shift(len(image), 2 * SHIFT_PAD + 1)))
            for image in (raw.obs, raw.next_obs)
        )
        with torch.set_grad_enabled(gradients):
            obs, next_obs = (self.backbone.encoder(seen) for seen in (image, next_image))
        return raw._replace(obs=obs, next_obs=next_obs, images=(image, next_image))

    def learn_policy(self, batch: Transitions) -> dict[str, Any]:
        """One update of the backbone."""
        return self.backbone.learn(batch, self.noise_std, self._draws, self._optimisers)

    def state_dict(self) -> dict[str, Any]:
        """The components' and the step counter."""
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.steps = state["steps"]


class DDPGActor(Actor):
    """Follows a DDPG agent's policy.

    Args:
        agent: whose current weights it uses.
        draws: the actor's own.
        noisy: add noise to the policy's mean.
        trains: tell the agent how far its training is.
        skill_steps: steps after which another skill is drawn, besides at each episode start; None for none.
        keeps_skill: follow one skill, drawn for the whole evaluation, or else at the first episode start.
    """

    def __init__(
        self,
        agent: DDPGLearner,
        draws: Draws,
        *,
        noisy: bool,
        trains: bool = False,
        skill_steps: int | None = None,
        keeps_skill: bool = False,
    ) -> None:
        self._agent, self._draws, self._noisy = agent, draws, noisy
        self._encoder = acting.encoder(agent.backbone.encoder)
        self._policy = acting_policy(agent.backbone.actor)
        self._trains, self._keeps_skill = trains, keeps_skill
        self._skill: SkillSchedule[Tensor | None] = SkillSchedule(self._draw, skill_steps)

    def _draw(self) -> Tensor | None:
        return None if self._agent.skills is None else self._agent.skills.draw(self._draws)

    def begin_evaluation(self, seed: int) -> None:
        """All episodes of an evaluation follow one skill, as released."""
        skills = self._agent.skills
        if skills is not None:
            self._skill.skill = skills.draw(Draws(derive_seed(seed, "skill"), self._agent.context.device))

    def begin_episode(self) -> None:
        """A fresh skill."""
        if self._skill.skill is None or not self._keeps_skill:
            self._skill.at_episode_start()

    def before_step(self, step: int) -> None:
        """The released loops look before acting, also right after a reset and while actions are random."""
        if self._trains:
            self._agent.steps = step
        self._skill.at_step(step)

    @torch.inference_mode()
    def act(self, observation: Array, step: int) -> Array:
        """The policy's mean [A], with noise that only the action's own limits bound."""
        agent = self._agent
        obs = self._encoder(preprocess(torch.as_tensor(observation, device=agent.context.device).unsqueeze(0)))
        skill = None if self._skill.skill is None else self._skill.skill.unsqueeze(0)
        policy = self._policy(agent.backbone.policy_input(obs, skill), agent.noise_std)
        action = policy.sample(self._draws.action_noise(policy.mean)) if self._noisy else policy.mean
        return action[0].cpu().numpy()

    def recorded(self) -> Mapping[str, Array]:
        """The skill, if there are any."""
        return {} if self._skill.skill is None else {"skill": self._skill.skill.cpu().numpy()}

    def state_dict(self) -> dict[str, Any]:
        """Draws and skill."""
        return {"draws": self._draws.state_dict(), "skill": self._skill.skill}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._draws.load_state_dict(state["draws"])
        self._skill.skill = None if state["skill"] is None else state["skill"].to(self._agent.context.device)

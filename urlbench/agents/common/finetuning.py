"""The fine-tuning of a policy in the imagination of a world model: rewarded by a task, perhaps with one skill of many.

Source: Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels", sec. 3, and its
released code.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

from torch import Tensor, nn

from urlbench.agents.common.actor_critic import ActorCritic, Critic
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skills import SkillSpace
from urlbench.agents.common.world_model import start_states, to_tensors
from urlbench.agents.common.world_model_learner import BehaviourLearner, WorldModelAgentConfig
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array
from urlbench.core.precision import many_rows


class SkillChoice(nn.Module):
    """Looks at replay batches of a fine-tuning until it knows which skill suits the task.

    Args:
        step: agent step from which on it looks.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    @abstractmethod
    def observe(self, batch: Mapping[str, Tensor], post: LatentState, behaviour: ActorCritic) -> Tensor | None:
        """The skill [K]; None for as long as it is not known.

        Args:
            batch: as the replay gives it.
            post: its model states [B, T, ...].
            behaviour: the policy that follows skills.
        """


class Finetuning(BehaviourLearner):
    """Learns from a task's reward, as the reward head of the world model sees it.

    With skills it follows random ones, then settles for one of them; until then only the world model learns.

    Args:
        context: where it lives.
        config: settings as fine-tuning has them.
        entropy: weight of the policy's entropy.
        entropy_in_critic: see `with_entropy`.
        skills: which there are; None if there are none.
        choice: of the one, if there are skills.
        critic: see `BehaviourLearner`.

    Attributes:
        steps: agent steps so far, as the training actor was last told.
        chosen_skill: the skill [K] that the agent has settled for; None as long as it follows random ones.
    """

    def __init__(
        self,
        context: AgentContext,
        config: WorldModelAgentConfig,
        *,
        entropy: float,
        entropy_in_critic: bool,
        skills: SkillSpace | None = None,
        choice: SkillChoice | None = None,
        critic: Callable[[int], Critic] | None = None,
    ) -> None:
        assert (skills is None) == (choice is None), "skills and their choice belong together"
        super().__init__(
            context, config, skills=skills, critic=critic, entropy=entropy, entropy_in_critic=entropy_in_critic
        )
        self.steps = 0
        self.chosen_skill: Tensor | None = None
        self._choice = choice
        if choice is not None:
            self.components["choice"] = choice.to(context.device)

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The pretrained policy from the first step on; its mean in evaluation."""
        return FinetuningActor(self, self.actor_draws(seed), evaluation=evaluation)

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """The world model; the choice of a skill, when its time has come; and the policy, of that skill."""
        tensors = to_tensors(batch, self.context.device)
        model, metrics = self.learn_world_model(tensors)
        choice, start = self._choice, start_states(model.post, tensors)
        if choice is not None and self.chosen_skill is None and self.steps >= choice.step:
            self.chosen_skill = choice.observe(tensors, model.post, self.behaviour)
        if choice is not None and self.chosen_skill is None:
            return metrics
        skill = None if self.chosen_skill is None else self.chosen_skill.expand(len(start.deter), -1)
        imagined = self.behaviour.imagine(self.world_model, start, self._draws, skill)
        reward = self.world_model.reward(imagined.trajectory.feat)
        learned = self.behaviour.learn(imagined, reward, self._optimisers)
        return metrics | {f"behaviour_{name}": value for name, value in learned.items()}

    def for_finetuning(self, context: AgentContext) -> Agent:
        """Refused: fine-tuning starts from a pretrained agent."""
        raise TypeError("this agent is fine-tuned already; call for_finetuning on a pretrained one")

    def state_dict(self) -> dict[str, Any]:
        """The components', the step counter and the choice."""
        return super().state_dict() | {"steps": self.steps, "chosen_skill": self.chosen_skill}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.steps, chosen = state["steps"], state["chosen_skill"]
        self.chosen_skill = None if chosen is None else chosen.to(self.context.device)


class FinetuningActor(PolicyActor):
    """Follows the policy with the chosen skill, or a random one before there is a choice.

    Args:
        agent: with whose current weights it acts.
        draws: its own.
        evaluation: deterministic, and no part of the training.
    """

    def __init__(self, agent: Finetuning, draws: Draws, *, evaluation: bool) -> None:
        super().__init__(
            agent,
            agent.behaviour.actor,
            draws,
            sample=not evaluation,
            skills=agent.skills,
            skill_steps=None if agent.skills is None else agent.skills.every,
            redraws="after_step",
        )
        self._agent, self._evaluation = agent, evaluation

    @property
    def skill(self) -> Tensor | None:
        """The skill [1, K] that is followed now; None for agents without."""
        chosen = self._agent.chosen_skill
        return super().skill if chosen is None else chosen.unsqueeze(0)

    def before_step(self, step: int) -> None:
        """Tell the agent how far its training is."""
        if not self._evaluation:
            self._agent.steps = step

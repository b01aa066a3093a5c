"""Choreographer: discovers skills in a world model's states, learns them in imagination, and directs them.

Source: Mazzaglia et al. 2023, "Choreographer: Learning and Adapting Skills in Imagination" (ICLR), alg. 1-2 and app.
A-B. Pretraining (alg. 1) is in `discovery.py`, fine-tuning (alg. 2) here.
"""

from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.choreographer.discovery import EntropyObjective, EntropySkillsConfig, SkillDiscovery
from urlbench.agents.choreographer.meta_controller import MetaController
from urlbench.agents.common import acting, presets
from urlbench.agents.common.distributions import onehot_mode
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.skills import SkillSpace, draw_onehot
from urlbench.agents.common.world_model import start_states, to_tensors
from urlbench.agents.common.world_model_learner import WorldModelLearner
from urlbench.core.interfaces import Actor, AgentContext, AgentSpec, Array
from urlbench.core.precision import many_rows


class ChoreographerConfig(EntropySkillsConfig):
    """What the meta-controller adds.

    Attributes:
        meta_entropy: of the meta-controller's choice of skill.
    """

    meta_entropy: float = 1e-4


class Choreographer(SkillDiscovery):
    """The pretraining agent, with the entropy reward; its fine-tuning has a meta-controller.

    Args:
        context: where it lives.
        config: settings.
        frozen_skills: fine-tuning leaves the skill policies as they are, which is the paper's zero-shot ablation.
    """

    config: ChoreographerConfig

    def __init__(self, context: AgentContext, config: ChoreographerConfig, *, frozen_skills: bool = False) -> None:
        super().__init__(context, config, EntropyObjective(context, config))
        self._frozen_skills = frozen_skills

    def for_finetuning(self, context: AgentContext) -> "ChoreographerFinetuning":
        """The agent of alg. 2, with this one's encoder, dynamics, decoder and skill policies.

        Everything else starts afresh, as released: reward head, meta-controller, critics and optimisers. The
        skill auto-encoder is neither trained nor used in fine-tuning and stays behind.
        """
        agent = ChoreographerFinetuning(context, self.config, frozen_skills=self._frozen_skills)
        agent.inherit_world_model(self.world_model)
        agent.controller.executor.load_state_dict(self.skill_policy.actor.state_dict())
        return agent


class ChoreographerFinetuning(WorldModelLearner):
    """The fine-tuning agent (alg. 2): a meta-controller over the pretrained skill policies.

    Args:
        context: where it lives.
        config: settings.
        frozen_skills: the skill policies do not learn.

    Attributes:
        smoothing: True until a replay batch holds a reward above the threshold; until then only the world
            model learns, and random skills act.
        steps: agent steps so far, as the training actor was last told.
    """

    def __init__(self, context: AgentContext, config: ChoreographerConfig, *, frozen_skills: bool = False) -> None:
        super().__init__(context, config)
        self.config = config
        self.smoothing, self.steps = True, 0
        self.controller = self.component(
            "controller",
            lambda: MetaController(
                self.world_model.rssm.feat_dim,
                config.skills.codes,
                context.action_dim,
                config.actor_critic.of_finetuning(),
                config.meta_entropy,
            ),
        )
        self._optimisers = self.controller.make_optimisers(config.optimiser, frozen_executor=frozen_skills)
        self.components |= {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """World model with reward head; the behaviour as soon as there is a reward to learn from."""
        tensors = to_tensors(batch, self.context.device)
        model, metrics = self.learn_world_model(tensors)
        rewarded = batch["reward"] > self.config.reward_threshold
        if bool((rewarded & batch["mask"] if "mask" in batch else rewarded).any()):
            self.smoothing = False
        if not self.smoothing:
            start = start_states(model.post, tensors)
            metrics |= self.controller.learn(self.world_model, start, self._draws, self._optimisers)
        return metrics

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """Random skills at first, then the meta-controller's."""
        return MetaActor(self, self.actor_draws(seed), evaluation=evaluation)

    def for_finetuning(self, context: AgentContext) -> "ChoreographerFinetuning":
        """Refused: fine-tuning starts from a pretrained agent."""
        raise TypeError("a ChoreographerFinetuning is fine-tuned already; call for_finetuning on a Choreographer")

    def for_transfer(self, context: AgentContext) -> "ChoreographerFinetuning":
        """Smoothing begins anew: nothing is known of the new task's rewards."""
        self.smoothing = True
        return self

    def state_dict(self) -> dict[str, Any]:
        """The components', the smoothing flag and the step counter."""
        return super().state_dict() | {"smoothing": self.smoothing, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.smoothing, self.steps = state["smoothing"], state["steps"]


def acting_policy(
    step: int, action_repeat: int, seed_frames: int, *, smoothing: bool
) -> Literal["random_skill", "meta_controller"]:
    """Who picks the skill during fine-tuning.

    Args:
        step: agent steps of the fine-tuning so far.
        action_repeat: frames a step.
        seed_frames: frames before the first update.
        smoothing: no rewarded replay batch was seen yet.
    """
    return "random_skill" if step < seed_frames // action_repeat or smoothing else "meta_controller"


class MetaActor(PolicyActor):
    """Follows a random skill, or the meta-controller's, executed by the skill policy."""

    def __init__(self, agent: ChoreographerFinetuning, draws: Draws, *, evaluation: bool) -> None:
        config = agent.config
        super().__init__(
            agent,
            agent.controller.executor,
            draws,
            sample=not evaluation,
            skills=SkillSpace(config.skills.codes, draw_onehot, config.random_skill_steps),
            skill_steps=config.random_skill_steps,
            redraws="after_step",
        )
        self._agent, self._evaluation = agent, evaluation
        self._chooser = acting.mlp(agent.controller.actor)

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """Sampled skill and action in training; their mode and mean in evaluation."""
        agent, skill = self._agent, self.skill
        if not self._evaluation:
            agent.steps = step  # an evaluation's own counter says nothing about the training's progress
        who = acting_policy(
            agent.steps, agent.context.action_repeat, agent.schedule.seed_frames, smoothing=agent.smoothing
        )
        if who == "meta_controller":
            logits = self._chooser(feat)
            drawn = F.one_hot(self._draws.skill(logits.softmax(-1)), agent.config.skills.codes).to(feat.dtype)
            skill = onehot_mode(logits) if self._evaluation else drawn
        return self.action(feat, skill)


# What the pretraining of skills never reads.
FINETUNING_SETTINGS = ("reward_threshold", "random_skill_steps", "actor_critic.finetune_actor_lr")

SPEC = AgentSpec(
    name="choreographer",
    description="world model, codebook of skills learned in imagination, meta-controller",
    paper="Mazzaglia et al. 2023, Choreographer: Learning and Adapting Skills in Imagination (ICLR)",
    observations=("states", "pixels"),
    pretrains=True,
    config=ChoreographerConfig,
    build=Choreographer,
    finetuning_settings=("meta_entropy", *FINETUNING_SETTINGS),
    presets={
        "smoke": {**presets.SMOKE, "skills": {"codes": 16, "units": (32, 32), "resample_every": 10}},
        "small": {
            **presets.SMALL,
            "skills": {"codes": 32, "units": (128, 128), "lr": 3e-4, "resample_every": 100},
            "lbs_lr": 1e-3,
        },
    },
)

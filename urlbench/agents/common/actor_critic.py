"""Imagined trajectories, lambda-returns, and an actor-critic that learns from them through the dynamics.

Source: Hafner et al. 2021 (DreamerV2), sec. 2 and eq. 4-6. Imagined sequences are [H + 1, N, ...]: row 0 is
the start state, and the reward of row t is that of being in state t.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from urlbench.agents.common.distributions import ClampedNormal, NormalPolicy, saturation, unit_normal_nll
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel
from urlbench.core.types import AddedLater, Spec


class ActorCriticConfig(Spec):
    """Defaults: the released Choreographer code.

    Attributes:
        units: hidden layers of actors and critics.
        horizon: imagined steps (H).
        discount: gamma.
        lambda_: of the lambda-return.
        slow_every: critic updates between two copies into the slow critic.
        slow_fraction: share of the critic in such a copy; the first is always complete.
        finetune_actor_lr: of the actors in fine-tuning; None is `actor_lr`, as published.
        centred_rewards: take the running mean out of the rewards that actor and critic learn from; published: False.
            Without it the critic first has to learn mean / (1 - discount), and meanwhile misleads the actor.
    """

    units: tuple[int, ...] = (400, 400, 400, 400)
    horizon: int = 15
    discount: float = 0.99
    lambda_: float = 0.95
    actor_lr: float = 8e-5
    critic_lr: float = 8e-5
    slow_every: int = 100
    slow_fraction: float = 1.0
    finetune_actor_lr: Annotated[float | None, AddedLater] = None
    centred_rewards: Annotated[bool, AddedLater] = False

    def of_finetuning(self) -> "ActorCriticConfig":
        """The settings as fine-tuning has them."""
        return self if self.finetune_actor_lr is None else self.model_copy(update={"actor_lr": self.finetune_actor_lr})


class Trajectory(NamedTuple):
    """An imagined sequence, start state included.

    Attributes:
        feat: [H + 1, N, F].
        deter: [H + 1, N, D].
        action: [H, N, A]; row t was taken in state t.
        continues: probability that the episode goes on behind each state, [H + 1, N], 1 at the start states; None
            where episodes never end early.
    """

    feat: Tensor
    deter: Tensor
    action: Tensor
    continues: Tensor | None = None

    def discount(self, gamma: float) -> float | Tensor:
        """How much less what comes behind each state counts: `gamma`, or [H, N] where episodes may end.

        Source: Hafner et al. 2021 (DreamerV2), app. C.
        """
        return gamma if self.continues is None else gamma * self.continues[:-1]


class Imagined(NamedTuple):
    """A trajectory that an actor-critic's own policy imagined.

    Attributes:
        trajectory: H steps from N start states.
        policies: over actions [N, A], in states 0 ... H - 1.
        skill: that actor and critic saw throughout, [N, K]; or None.
    """

    trajectory: Trajectory
    policies: list[ClampedNormal]
    skill: Tensor | None


def imagine(
    world_model: WorldModel, start: LatentState, policy: Callable[[Tensor, int], Tensor], horizon: int, draws: Draws
) -> Trajectory:
    """Roll `policy` out in the model.

    Args:
        world_model: gradients of the rewards reach the actions through its dynamics.
        start: N start states.
        policy: maps detached model states [N, F] and the step 0 ... H - 1 to actions [N, A].
        horizon: H.
        draws: of the latents.
    """
    state, feats, deters, actions = start, [start.feat], [start.deter], []
    for t in range(horizon):
        actions.append(policy(feats[-1].detach(), t))
        state = world_model.rssm.imagine_step(state, actions[-1], draws)
        feats.append(state.feat)
        deters.append(state.deter)
    feat = torch.stack(feats)
    continues = world_model.continues(feat)
    if continues is not None:  # starts are states behind which episodes went on
        continues = torch.cat([torch.ones_like(continues[:1]), continues[1:]])
    return Trajectory(feat, torch.stack(deters), torch.stack(actions), continues)


def lambda_return(
    reward: Tensor, value: Tensor, bootstrap: Tensor | None, discount: float | Tensor, lambda_: float
) -> Tensor:
    """R_t = r_t + d_t ((1 - lambda) v_{t+1} + lambda R_{t+1}), from R_T = v_T = bootstrap.

    Source: Hafner et al. 2021 (DreamerV2), eq. 4.

    Args:
        reward: r_0 ... r_{T-1}, [T, ...]; r_t belongs to the state of v_t.
        value: v_0 ... v_{T-1}, [T, ...]; v_0 is not used.
        bootstrap: v_T, [...]; None stands for zero.
        discount: a constant, or d_t as [T, ...].
        lambda_: 0 is the one-step return, 1 the discounted sum.

    Returns:
        [T, ...].
    """
    last = torch.zeros_like(value[0]) if bootstrap is None else bootstrap
    discounts = discount.expand_as(reward) if isinstance(discount, Tensor) else [discount] * len(reward)
    next_values = [*value[1:], last]
    returns: list[Tensor] = []
    for t in reversed(range(len(reward))):
        last = reward[t] + discounts[t] * ((1 - lambda_) * next_values[t] + lambda_ * last)
        returns.append(last)
    return torch.stack(returns[::-1])


def discount_weights(discount: float | Tensor, steps: int, like: Tensor) -> Tensor:
    """How much the losses count each imagined step: 1, d_0, d_0 d_1, ..., without gradient.

    Args:
        discount: a constant, or d_t as [T, N] with T >= steps.
        steps: how many.
        like: whose kind the weights are of.

    Returns:
        [steps, 1] for a constant, else [steps, N].
    """
    if isinstance(discount, Tensor):
        return torch.cat([torch.ones_like(discount[:1]), discount[: steps - 1]]).cumprod(0).detach()
    return (discount ** torch.arange(steps, device=like.device, dtype=like.dtype)).unsqueeze(-1)


class StreamNorm(nn.Module):
    """Divides rewards by a running mean of their magnitude, updated before use.

    Source: released DreamerV2 code. Momentum 1 leaves rewards as they are (up to the 1e-8), which is the
    published setting everywhere but in exploration (0.95).

    Args:
        momentum: of the magnitude.
        centred: take a running mean out before; it starts at the first batch's. The magnitude stays that of the rewards
            with it.
    """

    EPS = 1e-8
    CENTRE_MOMENTUM = 0.95

    magnitude: Tensor
    mean: Tensor

    def __init__(self, momentum: float, *, centred: bool = False) -> None:
        super().__init__()
        self.momentum, self.centred = momentum, centred
        self.register_buffer("magnitude", torch.ones(()))
        if centred:
            self.register_buffer("mean", torch.full((), torch.nan))

    @torch.no_grad()
    def _update(self, reward: Tensor) -> None:
        self.magnitude.mul_(self.momentum).add_((1 - self.momentum) * reward.abs().mean())
        if self.centred:
            mean = reward.mean()
            self.mean.copy_(torch.where(self.mean.isnan(), mean, torch.lerp(mean, self.mean, self.CENTRE_MOMENTUM)))

    def forward(self, reward: Tensor) -> Tensor:
        """`reward` of any shape, less the updated mean, divided by the updated magnitude: constants for gradients."""
        self._update(reward)
        return (reward - self.mean if self.centred else reward) / (self.magnitude + self.EPS)


class Critic(nn.Module):
    """A value function, its slow copy, and the rule that refreshes the copy.

    Args:
        inputs: size of the state it sees.
        config: sizes and the copying period.
        outputs: of both networks.
    """

    updates: Tensor

    def __init__(self, inputs: int, config: ActorCriticConfig, outputs: int = 1) -> None:
        super().__init__()
        self.config = config
        self.net = MLP(inputs, config.units, outputs)
        # The very first update uses an independently initialised slow critic, as published.
        self.slow = MLP(inputs, config.units, outputs).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def value(self, net: nn.Module, x: Tensor) -> Tensor:
        """Values [...] that `net`, the critic or its copy, gives [..., inputs], differentiable in the input."""
        value: Tensor = net(x).squeeze(-1)
        return value

    def slow_value(self, x: Tensor) -> Tensor:
        """Values [...] of the slow critic at [..., inputs], differentiable in the input."""
        return self.value(self.slow, x)

    def regression(self, value: Tensor, target: Tensor) -> Tensor:
        """The loss [...] of values [...] whose targets are [...]: that of a normal of variance 1."""
        return unit_normal_nll(value, target)

    def loss(self, x: Tensor, target: Tensor, discount: float | Tensor) -> Tensor:
        """Weighted regression on the returns.

        Args:
            x: states [H + 1, N, inputs]; the last row is not used.
            target: lambda-returns [H, N]; detached here.
            discount: of each step, see `discount_weights`.
        """
        value = self.value(self.net, x[:-1].detach())
        weights = discount_weights(discount, len(target), target)
        return (weights * self.regression(value, target.detach())).mean()

    @torch.no_grad()
    def refresh_slow(self) -> None:
        """Call once after each update; copies after updates number 1, slow_every + 1, 2 slow_every + 1 ..."""
        count = int(self.updates)
        if count % self.config.slow_every == 0:
            fraction = 1.0 if count == 0 else self.config.slow_fraction
            for slow, fast in zip(self.slow.parameters(), self.net.parameters(), strict=True):
                slow.lerp_(fast, fraction)
        self.updates += 1


def actor_loss(
    target: Tensor, discount: float | Tensor, entropy: Tensor | None = None, entropy_scale: float = 0.0
) -> Tensor:
    """-mean of weight_t (R_{t+1} + eta H[pi(.|z_t)]), t = 0 ... H - 2; the return carries the gradient.

    The released Dreamer code adds the entropy into the critic's targets, too: see `with_entropy`.

    Args:
        target: lambda-returns [H, N].
        discount: of each step, see `discount_weights`.
        entropy: policy entropy at states 0 ... H - 2, [H - 1, N].
        entropy_scale: eta.
    """
    objective = target[1:] if entropy is None else target[1:] + entropy_scale * entropy
    return -(discount_weights(discount, len(objective), target) * objective).mean()


def with_entropy(target: Tensor, entropy: Tensor, entropy_scale: float) -> Tensor:
    """The critic's targets of the released Dreamer code: lambda-returns, those but the first with the entropy bonus.

    The bonus gets there by an in-place addition to the actor's targets, which are a view of the critic's. Choreographer
    has no such bonus.

    Args:
        target: lambda-returns [H, N].
        entropy: policy entropy at states 0 ... H - 2, [H - 1, N].
        entropy_scale: eta.
    """
    return torch.cat([target[:1], target[1:] + entropy_scale * entropy])


class ActorCritic(nn.Module):
    """A policy and its critic, trained on imagined trajectories by backpropagation through the dynamics.

    Args:
        inputs: size of what the policy and the critic see: the model state, perhaps with a skill.
        action_dim: A.
        config: sizes and settings.
        reward_momentum: of the reward normaliser; 1 switches it off.
        entropy_scale: eta, the policy entropy's weight in the actor's objective.
        entropy_in_critic: the critic's targets are those of `with_entropy`.
        critic: another critic than the usual one.
    """

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        config: ActorCriticConfig,
        *,
        reward_momentum: float = 1.0,
        entropy_scale: float = 0.0,
        entropy_in_critic: bool = False,
        critic: Critic | None = None,
    ) -> None:
        super().__init__()
        self.config, self.entropy_scale, self.entropy_in_critic = config, entropy_scale, entropy_in_critic
        self.actor = NormalPolicy(inputs, config.units, action_dim)
        self.critic = Critic(inputs, config) if critic is None else critic
        self.reward_norm = StreamNorm(reward_momentum, centred=config.centred_rewards)

    def make_optimisers(self, config: OptimiserConfig) -> dict[str, Optimiser]:
        """The `actor` and `critic` optimisers that `learn` takes."""
        return {
            "actor": Optimiser(self.actor.parameters(), self.config.actor_lr, config),
            "critic": Optimiser(self.critic.net.parameters(), self.config.critic_lr, config),
        }

    @staticmethod
    def sees(feat: Tensor, skill: Tensor | None) -> Tensor:
        """What actor and critic see of model states [..., N, F] and skills [N, K], if there are any."""
        return feat if skill is None else torch.cat([feat, skill.expand(*feat.shape[:-1], -1)], -1)

    def imagine(
        self, world_model: WorldModel, start: LatentState, draws: Draws, skill: Tensor | None = None
    ) -> Imagined:
        """What the policy would do.

        Args:
            world_model: with the dynamics.
            start: N detached start states.
            draws: of latents and action noise.
            skill: skills [N, K], constant over the trajectory, that actor and critic see; or None.
        """
        policies: list[ClampedNormal] = []

        def policy(feat: Tensor, t: int) -> Tensor:
            policies.append(self.actor(self.sees(feat, skill)))
            return policies[-1].sample(draws.action_noise(policies[-1].mean))

        return Imagined(imagine(world_model, start, policy, self.config.horizon, draws), policies, skill)

    def learn(self, imagined: Imagined, reward: Tensor, optimisers: dict[str, Optimiser]) -> dict[str, Tensor]:
        """One update of the actor and one of the critic.

        Args:
            imagined: what `imagine` returned.
            reward: of its states, [H + 1, N].
            optimisers: as `make_optimisers` returns them.

        Returns:
            Scalars by name.
        """
        policies, discount = imagined.policies, imagined.trajectory.discount(self.config.discount)
        states = self.sees(imagined.trajectory.feat, imagined.skill)
        reward = self.reward_norm(reward)
        value = self.critic.slow_value(states)
        target = lambda_return(reward[:-1], value[:-1], value[-1], discount, self.config.lambda_)
        entropy = torch.stack([p.entropy() for p in policies[:-1]]) if self.entropy_scale else None
        loss = actor_loss(target, discount, entropy, self.entropy_scale)
        metrics: dict[str, Any] = {"actor_grad_norm": optimisers["actor"].step(loss)}
        if entropy is not None and self.entropy_in_critic:
            target = with_entropy(target, entropy, self.entropy_scale)
        critic_loss = self.critic.loss(states, target, discount)
        metrics["critic_grad_norm"] = optimisers["critic"].step(critic_loss)
        self.critic.refresh_slow()
        std = torch.stack([p.std.detach() for p in policies]).mean()
        return metrics | {
            "actor_loss": loss.detach(),
            "critic_loss": critic_loss.detach(),
            "reward": reward.detach().mean(),
            "value": value.detach().mean(),
            "action_std": std,
            "saturation": saturation(torch.stack([p.mean.detach() for p in policies])),
        }

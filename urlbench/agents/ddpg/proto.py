"""ProtoRL: prototypes of observations, and a reward for what is far from those seen lately.

Source: Yarats et al. 2021, "Reinforcement Learning with Prototypical Representations", alg. 1, and the code released
with Laskin et al. 2021 (URLB).
"""

import copy

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import orthogonal_, relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions, soft_update
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, PretrainedConfig
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext
from urlbench.core.precision import products_in


class ProtoConfig(PretrainedConfig):
    """Defaults: the released URLB code.

    Attributes:
        transfer_q_heads: as released, ProtoRL's fine-tuning takes over the whole critic.
        prototypes: how many (K).
        prototype_dim: their size (D).
        projector_hidden: width of the projector.
        temperature: of scores.
        sinkhorn_steps: rounds of balancing.
        queue: candidates kept, a multiple of `prototypes`. It starts with zero vectors, which count as neighbours
            until they are overwritten.
        neighbour: the reward is the distance to the neighbour of this rank among the candidates.
        target_tau: share of the online networks in each update of their targets.
    """

    transfer_q_heads: bool = True
    prototypes: int = 512
    prototype_dim: int = 128
    projector_hidden: int = 512
    temperature: float = 0.1
    sinkhorn_steps: int = 3
    queue: int = Field(default=2048, gt=0)
    neighbour: int = Field(default=3, gt=0)
    target_tau: float = 0.05

    @model_validator(mode="after")
    def _queue_is_a_ring(self) -> "ProtoConfig":
        if self.queue % self.prototypes:
            raise ValueError(f"queue {self.queue} must be a multiple of prototypes {self.prototypes}")
        return self


def sinkhorn(scores: Tensor, steps: int) -> Tensor:
    """Assign N samples to K prototypes such that all prototypes get alike.

    Source: Cuturi 2013; Caron et al. 2020 (SwAV), app. A.

    Args:
        scores: [N, K], divided by the temperature.
        steps: rounds.

    Returns:
        [N, K]; rows sum to one.
    """
    assigned = (scores - scores.max()).exp()
    assigned = assigned / assigned.sum()
    count, prototypes = assigned.shape
    for _ in range(steps):
        assigned = assigned / (assigned.sum(0, keepdim=True) * prototypes)
        assigned = assigned / (assigned.sum(1, keepdim=True) * count)
    return assigned / assigned.sum(1, keepdim=True)


@products_in("float32")
def neighbour_distance(x: Tensor, others: Tensor, rank: int) -> Tensor:
    """Distance [N] of each row of `x` [N, D] to the row of `others` [Q, D] that is its neighbour of that rank, from 1.

    Neighbours are chosen by distances in their matrix-product form, which loses digits where vectors are almost alike
    (less so when centred); what is returned is computed from differences.
    """
    centre = others.mean(0)
    nearest = torch.cdist(x - centre, others - centre).topk(rank, largest=False).indices
    return (x.unsqueeze(1) - others[nearest]).norm(dim=-1).amax(-1)


class Prototypes(IntrinsicReward):
    """Learns prototypes by predicting assignments; rewards the distance to candidates drawn for each prototype.

    Attributes:
        candidates: ring of the latest candidates, [queue, D].
        position: where the next ones go.
    """

    candidates: Tensor
    position: Tensor

    def __init__(self, context: AgentContext, config: ProtoConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        dim = config.prototype_dim
        self.predictor = nn.Linear(backbone.features, dim)
        self.projector = relu_mlp(dim, (config.projector_hidden,), dim)
        self.prototypes = nn.Linear(dim, config.prototypes, bias=False)
        for layer in (self.predictor, self.prototypes):
            layer.apply(orthogonal_)
        # In a list, so that the encoder is not saved as a part of this module.
        self._encoder = [backbone.encoder]
        self.target_encoder = copy.deepcopy(backbone.encoder).requires_grad_(False)
        self.target_predictor = copy.deepcopy(self.predictor).requires_grad_(False)
        self.register_buffer("candidates", torch.zeros(config.queue, dim))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        trained = [*self.predictor.parameters(), *self.projector.parameters(), *self.prototypes.parameters()]
        self.optimisers = {"model": Optimiser([*trained, *backbone.encoder.parameters()], config.lr, ADAM)}

    @torch.no_grad()
    def normalise_prototypes(self) -> None:
        """Give every prototype length one."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=-1))

    @torch.no_grad()
    def assignments(self, next_observation: Tensor) -> Tensor:
        """What is predicted: the target networks' balanced assignments [N, K], without the projector."""
        embedded = F.normalize(self.target_predictor(self.target_encoder(next_observation)), dim=-1)
        return sinkhorn(self.prototypes(embedded) / self.config.temperature, self.config.sinkhorn_steps)

    def log_probs(self, obs: Tensor) -> Tensor:
        """Predicted log-probabilities of the prototypes, [N, K]."""
        embedded = F.normalize(self.projector(self.predictor(obs)), dim=-1)
        return F.log_softmax(self.prototypes(embedded) / self.config.temperature, -1)

    @torch.no_grad()
    def reward(self, next_obs: Tensor, draws: Draws) -> Tensor:
        """Draw a candidate for each prototype into the queue; then distances [N] to the queue."""
        self.normalise_prototypes()
        embedded = F.normalize(self.predictor(next_obs), dim=-1)
        chosen = embedded[draws.candidate(self.prototypes(embedded).T.softmax(-1))]
        start = int(self.position)
        self.candidates[start : start + len(chosen)] = chosen
        self.position.fill_((start + len(chosen)) % len(self.candidates))
        return neighbour_distance(embedded, self.candidates, self.config.neighbour)

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of predictor, projector and prototypes; then the reward, and the targets follow."""
        next_observation = batch.next_obs if batch.images is None else batch.images[1]
        self.normalise_prototypes()
        loss = -(self.assignments(next_observation) * self.log_probs(batch.obs)).sum(-1).mean()
        self.optimisers["model"].step(loss)
        reward = self.reward(batch.next_obs, draws)
        soft_update(self.predictor, self.target_predictor, self.config.target_tau)
        soft_update(self._encoder[0], self.target_encoder, self.config.target_tau)
        return Learned(reward, {"prototype_loss": loss.detach()})


SPEC = pretrained_spec(
    name="proto",
    description="DDPG rewarded by the distance to candidates drawn for learned prototypes",
    paper="Yarats et al. 2021, Reinforcement Learning with Prototypical Representations (ICML)",
    config=ProtoConfig,
    method=Method(reward=Prototypes),
    smoke={"prototypes": 8, "prototype_dim": 8, "projector_hidden": 16, "queue": 32},
    small={"prototypes": 64, "prototype_dim": 32, "projector_hidden": 64, "queue": 256},
)

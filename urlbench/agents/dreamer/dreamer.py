"""Dreamer from scratch: what fine-tuning gives without pretraining."""

from urlbench.agents.dreamer.config import DreamerConfig
from urlbench.agents.dreamer.finetuning import DreamerFinetuning
from urlbench.agents.dreamer.spec import SMALL, SMOKE
from urlbench.core.interfaces import AgentContext, AgentSpec


class FromScratch(DreamerFinetuning):
    """Its fine-tuning carries nothing over."""

    def for_finetuning(self, context: AgentContext) -> DreamerFinetuning:
        """A fresh one."""
        return DreamerFinetuning(context, self.config)


SPEC = AgentSpec(
    name="dreamer",
    description="world model, policy learned in imagination, no pretraining",
    paper="Hafner et al. 2021, Mastering Atari with Discrete World Models (ICLR)",
    observations=("states", "pixels"),
    pretrains=False,
    config=DreamerConfig,
    build=FromScratch,
    presets={"smoke": SMOKE, "small": SMALL},
)

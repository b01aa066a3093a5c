"""DDPG from scratch: what fine-tuning gives without pretraining."""

from urlbench.agents.ddpg.backbone import DDPGConfig
from urlbench.agents.ddpg.finetuning import Finetuning
from urlbench.agents.ddpg.spec import IMAGE, SMALL, SMOKE
from urlbench.core.interfaces import AgentContext, AgentSpec


class FromScratch(Finetuning):
    """Its fine-tuning carries nothing over."""

    def for_finetuning(self, context: AgentContext) -> Finetuning:
        """A fresh one."""
        return Finetuning(context, self.config)


SPEC = AgentSpec(
    name="ddpg",
    description="DDPG with twin critics and n-step returns, no pretraining",
    paper="Lillicrap et al. 2016, in the form of Yarats et al. 2021 (DrQ-v2); a baseline of Laskin et al. 2021 (URLB)",
    observations=("states", "pixels"),
    pretrains=False,
    config=DDPGConfig,
    build=FromScratch,
    presets={"smoke": SMOKE, "small": SMALL},
    image=IMAGE,
)

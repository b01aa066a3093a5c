from .backbone import ADAM as ADAM, Backbone as Backbone, Transitions as Transitions
from .pretraining import (
    IntrinsicReward as IntrinsicReward,
    Learned as Learned,
    Method as Method,
    PretrainedConfig as PretrainedConfig,
)
from .spec import pretrained_spec as pretrained_spec

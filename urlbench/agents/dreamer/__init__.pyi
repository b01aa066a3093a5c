from .pretraining import IntrinsicReward as IntrinsicReward, Method as Method, PretrainedConfig as PretrainedConfig
from .replay_reward import ReplayReward as ReplayReward
from .spec import pretrained_spec as pretrained_spec

from .agents import ddpg as ddpg, dreamer as dreamer
from .agents.common.draws import Draws as Draws
from .agents.common.masks import unmasked as unmasked, unmasked_mean as unmasked_mean
from .agents.common.networks import relu_mlp as relu_mlp
from .agents.common.optimiser import Optimiser as Optimiser
from .agents.common.running_moments import RunningMoments as RunningMoments
from .agents.common.world_model import WorldModel as WorldModel, preprocess as preprocess
from .core.config import resolve_config as resolve_config
from .core.errors import UserError as UserError
from .core.interfaces import (
    Actor as Actor,
    Agent as Agent,
    AgentConfig as AgentConfig,
    AgentContext as AgentContext,
    AgentSpec as AgentSpec,
    Array as Array,
    Batch as Batch,
    CoveredEnvironment as CoveredEnvironment,
    DataStatistics as DataStatistics,
    DrawnEnvironment as DrawnEnvironment,
    Environment as Environment,
    GoalEnvironment as GoalEnvironment,
    JudgedEnvironment as JudgedEnvironment,
    PhysicsEnvironment as PhysicsEnvironment,
    Schedule as Schedule,
    StackedEnvironment as StackedEnvironment,
    TimeStep as TimeStep,
)
from .core.jobs import Job as Job, Plan as Plan
from .core.registry import (
    load_agent as load_agent,
    load_plugin as load_plugin,
    load_suite as load_suite,
    make_environment as make_environment,
    register_agent as register_agent,
    register_suite as register_suite,
)
from .core.seeding import (
    derive_seed as derive_seed,
    generator_state as generator_state,
    set_generator_state as set_generator_state,
    stream as stream,
)
from .core.types import (
    ArrayFormat as ArrayFormat,
    Domain as Domain,
    EpisodeFormat as EpisodeFormat,
    GoalSets as GoalSets,
    ImageFormat as ImageFormat,
    Normaliser as Normaliser,
    Protocol as Protocol,
    Search as Search,
    Spec as Spec,
    Suite as Suite,
    Task as Task,
    Transfer as Transfer,
)
from .runs.plan import PlanRequest as PlanRequest, make_plan as make_plan

__version__: str

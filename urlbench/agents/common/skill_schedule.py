"""When a randomly drawn skill is replaced by the next."""

from collections.abc import Callable
from typing import Generic, TypeVar

S = TypeVar("S")


class SkillSchedule(Generic[S]):
    """Holds the current skill: a new one at each episode start and whenever the step counter divides `every`.

    Published loops differ in when they look: pretraining loops before acting, with the counter as it is;
    the Dreamer-style fine-tuning loops after the step, with the increased counter, unless the episode ended.
    Callers call `at_step` accordingly.

    Args:
        draw: returns a new skill.
        every: period in agent steps of the run (of the evaluation, when evaluating); None for none.
    """

    def __init__(self, draw: Callable[[], S], every: int | None) -> None:
        self._draw = draw
        self._every = every
        self.skill: S | None = None

    def at_episode_start(self) -> None:
        """Draw a skill."""
        self.skill = self._draw()

    def at_step(self, step: int) -> None:
        """Draw a skill if `step` is a multiple of the period."""
        if self._every is not None and step % self._every == 0:
            self.skill = self._draw()

"""The reward formulas of the tasks that are not dm_control's, on numbers worked by hand."""

import pytest

from urlbench.suites.dmc.jaco import reach_reward
from urlbench.suites.dmc.quadruped import jump_reward, upright_reward
from urlbench.suites.dmc.walker import flip_reward


@pytest.mark.parametrize(
    ("stand", "angular_momentum", "expected"),
    [
        (1.0, 5.0, 1.0),
        (1.0, 20.0, 1.0),
        (1.0, 2.5, 3.5 / 6),
        (1.0, 0.0, 1 / 6),
        # Backward counts like not turning at all, however fast.
        (1.0, -5.0, 1 / 6),
        (0.6, 4.0, 0.6 * 5 / 6),
        (0.0, 5.0, 0.0),
    ],
)
def test_walker_flip(stand: float, angular_momentum: float, expected: float) -> None:
    assert flip_reward(stand, angular_momentum) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("torso_zz", "expected"), [(1.0, 1.0), (0.0, 0.5), (-0.5, 0.25), (-1.0, 0.0)])
def test_quadruped_stand(torso_zz: float, expected: float) -> None:
    assert upright_reward(torso_zz) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("torso_zz", "height", "expected"),
    [
        (1.0, 1.0, 1.0),
        (1.0, 1.5, 1.0),
        (1.0, 0.5, 0.75),
        (1.0, 0.0, 0.5),
        # Standing still is already worth 0.72 a frame.
        (1.0, 0.442, 0.721),
        (0.0, 0.5, 0.375),
        (-1.0, 1.0, 0.0),
    ],
)
def test_quadruped_jump(torso_zz: float, height: float, expected: float) -> None:
    assert jump_reward(torso_zz, height) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(0.0, 1.0), (0.05, 1.0), (0.075, 10**-0.25), (0.1, 0.1), (0.15, 1e-4), (0.2, 1e-9)],
)
def test_jaco_reach(distance: float, expected: float) -> None:
    assert reach_reward(distance) == pytest.approx(expected, rel=1e-9)

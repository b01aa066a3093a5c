"""Every topic of the recordings that we can check, by name, with the tolerances that hold if none are recorded."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_control as control
import golden_ddpg as ddpg
import golden_dreamer as dreamer
import golden_intrinsic as intrinsic
import golden_parts as parts
import golden_skills as skills
import golden_updates as updates
import torch
from golden_recording import Recording

torch.set_num_threads(1)  # the matrices are tiny, and waiting for a second thread on a busy machine takes seconds

CHECKERS: dict[str, Callable[[Recording], None]] = {
    "lambda_return": parts.check_lambda_return,
    "kl_balance": parts.check_kl_balance,
    "knn_reward": parts.check_knn_reward,
    "vq_ema": parts.check_vq_ema,
    "code_resampling": parts.check_code_resampling,
    "code_reward": parts.check_code_reward,
    "stream_norm": parts.check_stream_norm,
    "trunc_normal": parts.check_trunc_normal,
    "onehot_st": parts.check_onehot_st,
    "gru_cell": parts.check_gru_cell,
    "rssm_step": parts.check_rssm_step,
    "imagine_weights": parts.check_imagine_weights,
    "slow_target": parts.check_slow_target,
    "image_preproc": parts.check_image_preproc,
    "lbs_reward": parts.check_lbs_reward,
    "conv_nets": parts.check_conv_nets,
    "optimizer": updates.check_optimizer,
    "skill_module": updates.check_skill_module,
    "wm_loss": updates.check_wm_loss,
    "imagine_expl": updates.check_imagine_expl,
    "imagine_skill": updates.check_imagine_skill,
    "imagine_meta": updates.check_imagine_meta,
    "dreamer_replay": control.check_dreamer_replay,
    "skill_schedule": control.check_skill_schedule,
    "choreo_control": control.check_choreo_control,
    "ddpg_nets": ddpg.check_ddpg_nets,
    "ddpg_noise": ddpg.check_ddpg_noise,
    "ddpg_update": ddpg.check_ddpg_update,
    "soft_update": ddpg.check_soft_update,
    "schedule": ddpg.check_schedule,
    "running_stats": ddpg.check_running_stats,
    "nstep_replay": ddpg.check_nstep_replay,
    "random_shift": ddpg.check_random_shift,
    "icm": intrinsic.check_icm,
    "rnd": intrinsic.check_rnd,
    "disagreement": intrinsic.check_disagreement,
    "apt": intrinsic.check_apt,
    "proto": intrinsic.check_proto,
    "smm": intrinsic.check_smm,
    "diayn": intrinsic.check_diayn,
    "aps": intrinsic.check_aps,
    "cic": intrinsic.check_cic,
    "dreamer_p2e": dreamer.check_dreamer_p2e,
    "dreamer_icm": dreamer.check_dreamer_icm,
    "dreamer_rnd": dreamer.check_dreamer_rnd,
    "dreamer_diayn": dreamer.check_dreamer_diayn,
    "dreamer_aps": dreamer.check_dreamer_aps,
    "cem_skill_plan": skills.check_cem_skill_plan,
    "skimo_plan": skills.check_skimo_plan,
    "tdmpc_plan": skills.check_tdmpc_plan,
    "dreamerv1_rssm": skills.check_dreamerv1_rssm,
}

PRECISIONS = {"float64": (torch.float64, "tol64"), "float32": (torch.float32, "tol32")}
_TOLERANCE = {"tol64": 1e-9, "tol32": 1e-5}
_TOLERANCES: dict[str, dict[str, float]] = {
    # Distances of nearly equal points lose digits, most of all in single precision.
    "knn_reward": {"tol64": 1e-6, "tol32": 1e-3},
    "imagine_skill": {"tol32": 1e-3},
    "kl_balance": {"tol32": 3e-4},
    "imagine_weights": {"tol32": 1e-4},
    "skill_module": {"tol32": 1e-4},
    "lbs_reward": {"tol32": 3e-5},
    "wm_loss": {"tol32": 3e-5},
    "imagine_expl": {"tol32": 3e-5},
    "imagine_meta": {"tol32": 3e-5},
    "ddpg_update": {"tol32": 3e-5},
    "random_shift": {"tol32": 1e-4},
    "rnd": {"tol32": 3e-5},
    "dreamer_rnd": {"tol32": 1e-4},
    "dreamer_diayn": {"tol32": 3e-5},
    "dreamer_aps": {"tol32": 1e-3},
    "apt": {"tol32": 3e-5},
    "proto": {"tol32": 3e-5},
    "aps": {"tol32": 1e-4},
    "cic": {"tol32": 3e-5},
}


def golden_folder(default: Path) -> Path:
    """The folder named by URLBENCH_GOLDEN, or `default`; FileNotFoundError if it holds no topic that we can check."""
    folder = Path(os.environ.get("URLBENCH_GOLDEN") or default)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the folder of golden files {str(folder)!r} does not exist; set URLBENCH_GOLDEN to one."
        )
    if not topics(folder):
        raise FileNotFoundError(
            f"the folder {str(folder)!r} holds no golden file to check; set URLBENCH_GOLDEN to another."
        )
    return folder


def topics(folder: Path) -> list[str]:
    """The folder's topics that have a checker."""
    return [topic for topic in sorted(path.stem for path in folder.glob("*.npz")) if topic in CHECKERS]


def not_covered(folder: Path) -> list[str]:
    """The folder's topics without a checker: mostly of agents that do not exist yet."""
    return [topic for topic in sorted(path.stem for path in folder.glob("*.npz")) if topic not in CHECKERS]


def tolerance(folder: Path, topic: str, name: str) -> float:
    """`tol64` or `tol32` of the topic, from the folder's index if it has the topic."""
    index = folder / "index.json"
    recorded: dict[str, Any] = json.loads(index.read_text()) if index.is_file() else {}
    return float(recorded.get(topic, {}).get(name) or _TOLERANCES.get(topic, {}).get(name) or _TOLERANCE[name])


def check(folder: Path, topic: str, precision: str) -> Recording:
    """Compare our parts with one topic.

    Args:
        folder: of the recordings.
        topic: one of `topics`.
        precision: `float64` or `float32`, for weights, inputs and our computation.

    Raises:
        AssertionError: naming the result that is beyond its tolerance.
    """
    dtype, name = PRECISIONS[precision]
    data = Recording(folder / f"{topic}.npz", dtype, tolerance(folder, topic, name))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # modules and image scaling take it from there
    try:
        CHECKERS[topic](data)
    finally:
        torch.set_default_dtype(before)
    assert data.largest, f"{topic}: nothing was compared"
    return data

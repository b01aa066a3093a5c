"""Runs of Weights & Biases in its offline mode: files that `wandb sync` can send, and nothing is sent before."""

from pathlib import Path

import wandb

from urlbench.exports.series import Series


def write_offline_run(series: Series, folder: Path) -> Path:
    """Write one run below `folder`; the folder that W&B made.

    The project is the suite and the group the agent with its configuration. Nothing is recorded of this machine and of
    the folder that the command runs in, for the run was made elsewhere.
    """
    run, spec = series.run, series.run.spec
    settings = wandb.Settings(
        console="off",
        disable_git=True,
        save_code=False,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    tracked = wandb.init(
        project=spec.suite.replace("@", "-"),
        group=f"{spec.agent}-{run.config_hash}",
        job_type=spec.phase,
        name=run.path,
        id=run.id,
        config=series.settings,
        dir=str(folder),
        mode="offline",
        settings=settings,
    )
    for step, values in series.steps:
        tracked.log(dict(values), step=step)
    tracked.finish()
    return Path(tracked.dir).parent

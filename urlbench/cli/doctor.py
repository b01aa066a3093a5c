"""`urlbench doctor`: is this machine, or this cluster, ready?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from urlbench.cli.options import JsonOption, RunsOption
from urlbench.core.errors import UserError


def doctor(
    runs: RunsOption = Path("runs"),
    cluster: Annotated[
        Path | None, typer.Option("--cluster", help="Check the cluster of this YAML profile instead, with a short job.")
    ] = None,
    wait: Annotated[
        int | None, typer.Option("--wait", help="Seconds that the job of --cluster may take [default: 300]", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine (versions, devices, room, one step of an environment), or a cluster."""
    if cluster is None:
        if wait is not None:
            raise UserError("--wait is for the job of --cluster; add that, or leave --wait away.")
        from urlbench.local.doctor import run_checks

        found = run_checks(runs)
    else:
        from urlbench.local.run import check_folder
        from urlbench.slurm.cluster_doctor import run_cluster_checks
        from urlbench.slurm.profile import load_profile

        found = run_cluster_checks(load_profile(cluster), check_folder(runs), wait or 300)
    checks = []
    for check in found:
        checks.append(check)
        if not as_json:
            print(check, flush=True)
    if as_json:
        print(json.dumps([check.model_dump(mode="json") for check in checks], indent=2, ensure_ascii=False))
    raise typer.Exit(1 if any(check.result == "failed" for check in checks) else 0)

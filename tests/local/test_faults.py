"""A few random faults over local runs and over a real Slurm; fault_campaign.py is the long form."""

import random
from pathlib import Path

import pytest
from fault_campaign import LocalCampaign, SlurmCampaign, run_campaign, small_disk
from slurm_cluster import SlurmCluster

FAULTS = 4


@pytest.mark.slow
def test_local_runs_survive_random_faults(tmp_path: Path) -> None:
    with small_disk(tmp_path / "runs") as disk:
        campaign = LocalCampaign(disk, random.Random(0), FAULTS)
        assert run_campaign(campaign, tmp_path / "undisturbed", seeds_at_a_time=1) >= 6
    assert campaign.counts.total() >= FAULTS


@pytest.mark.slow
def test_runs_on_a_cluster_survive_random_faults(slurm: SlurmCluster, tmp_path: Path) -> None:
    profile = tmp_path / "cluster.yaml"
    profile.write_text("resources: {slot: 10m, partition: main}\n")
    with small_disk(tmp_path / "runs") as disk:
        campaign = SlurmCampaign(disk, random.Random(0), FAULTS, slurm, profile)
        assert run_campaign(campaign, tmp_path / "undisturbed", seeds_at_a_time=1) >= 6
    assert campaign.counts.total() >= FAULTS

"""The search of a reduced preset's settings: that it runs, and that the page shows its records."""

import json
import sys
from pathlib import Path

import pytest
from processes import run_program

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "reduced-presets.md"


def command(script: str, *arguments: str) -> str:
    return run_program([sys.executable, str(BENCHMARKS / f"{script}.py"), *arguments], cwd=ROOT, check=True).stdout


@pytest.mark.parametrize("script", ["reduced_preset", "exploration_settings"])
def test_the_page_shows_the_record(script: str) -> None:
    shown = command(script, "--show", str(BENCHMARKS / "results" / f"{script}.json"))
    assert shown.count("\n") > 4
    assert shown in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_pretraining_is_judged_and_explored_in(tmp_path: Path) -> None:
    runs, found = str(tmp_path / "runs"), tmp_path / "found.json"
    tried = ("--runs", runs, "--settings", "centred-slow", "--preset", "smoke")
    table = command("reduced_preset", *tried, "--output", str(found))
    assert table.splitlines()[-1].startswith("| centred-slow | 0 ")
    (judgement,) = json.loads(found.read_text(encoding="utf-8"))["judgements"]
    assert judgement["training"]["cells"] > 0
    assert 0 <= judgement["snapshot"]["own_rank"] < 16
    assert command("reduced_preset", "--show", str(found)) == table
    explored = command("exploration_settings", "--runs", str(tmp_path / "runs" / "centred-slow"), "--updates", "2")
    assert len(explored.splitlines()) == 9

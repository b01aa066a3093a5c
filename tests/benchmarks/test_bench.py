"""How `make bench` reads and shows what benchmarks record; never how fast anything is."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from processes import run_program

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
ROW = {"what": "update of x", "plain": 2.0, "fast": 3.0, "unit": "updates/s", "ratio": 1.5}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import bench

    return bench


def test_rows_are_read_as_they_are_written(bench: ModuleType, tmp_path: Path) -> None:
    rows = [bench.comparing.Row(**ROW), bench.comparing.Row("report", None, 12.3, "s", None)]
    bench.comparing.write(tmp_path / "found.json", {"threads": 1}, rows, repetitions=2)
    assert bench.rows_of(tmp_path / "found.json") == rows
    assert json.loads((tmp_path / "found.json").read_text())["settings"] == {"repetitions": 2}
    assert bench.comparing.table(rows).splitlines()[2:] == [
        "| update of x | updates/s | 2     | 3        | 1.5   |",
        "| report      | s         | —     | 12.3     | —     |",
    ]


@pytest.mark.parametrize("found", [{}, {"rows": []}, [ROW], {"rows": [{**ROW, "speed": 1}]}, {"rows": [{"what": "x"}]}])
def test_another_form_is_refused(bench: ModuleType, tmp_path: Path, found: Any) -> None:
    (tmp_path / "found.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ValueError, match=r"found\.json"):
        bench.rows_of(tmp_path / "found.json")


def test_every_script_is_there_and_knows_its_arguments(bench: ModuleType) -> None:
    for script in bench.SCRIPTS:
        text = (BENCHMARKS / f"{script.name}.py").read_text(encoding="utf-8")
        for option in ("--output", *(one for one in script.quick if one.startswith("--"))):
            assert f'"{option}"' in text, (script.name, option)


def test_times_and_rates_of_the_same_seconds_have_the_same_ratio(bench: ModuleType) -> None:
    fast, plain = [1.0, 2.0, 4.0], [3.0, 4.0, 12.0]
    rate = bench.comparing.row("x", fast, plain, unit="1/s", per_second=8)
    took = bench.comparing.row("x", fast, plain, unit="ms", scale=1000)
    assert rate[1:] == (2.0, 4.0, "1/s", 3.0)
    assert took[1:] == (4000.0, 2000.0, "ms", 3.0)


def test_who_goes_first_changes(bench: ModuleType) -> None:
    calls: list[str] = []
    fast, plain = bench.comparing.take_turns(lambda: calls.append("fast"), lambda: calls.append("plain"), 2)
    assert (len(fast), len(plain)) == (2, 2)
    assert calls == ["fast", "plain", "plain", "fast", "fast", "plain"]


def test_the_documents_show_what_was_recorded(bench: ModuleType) -> None:
    assert bench.recorded(BENCHMARKS / "results") in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_freed_memory_is_kept() -> None:
    """Each of these tensors is mapped and cleared anew, 16,384 pages, or lies where others were."""
    code = """
import resource, sys, torch
from urlbench.training.assembly import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(40):
    if number == 30:  # before that the heap grows, as what is small lies between
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        kind: int(run_program([sys.executable, "-c", code, kind], check=True, cwd=ROOT).stdout)
        for kind in ("freed", "kept")
    }
    assert faults["kept"] < 1000 < faults["freed"]

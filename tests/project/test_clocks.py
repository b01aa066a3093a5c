"""No test asserts on the clock, races a process or depends on how the tests were started, read from the tests' code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("*.py"))}
# All others wait by `processes.wait_until`, and let what they start wait by `toy_runs.Hold`.
MAY_LOOK_AT_THE_CLOCK = {
    "support/processes.py": "limits against hanging",
    "support/slurm_cluster.py": "waits, and says what Slurm knows if it was in vain",
    "support/fault_campaign.py": "lets time pass between faults; its limits are against hanging",
    "support/stub_worker.py": "waits for other processes",
    "support/toy_plugin.py": "agents that a campaign of faults slows down",
}
# All others start programs by `processes.run_program` and `processes.started`, which end them, too.
MAY_START_PROCESSES = {
    "conftest.py": "gives time to those that our commands start",
    "support/processes.py": "for all others",
    "support/slurm_cluster.py": "daemons",
    "support/struck.py": "forks that are killed",
    "support/parity_traces.py": "one for each recording",
}
STARTS = {
    *(f"subprocess.{name}" for name in ("Popen", "call", "check_call", "check_output", "getoutput", "run")),
    *(f"os.{name}" for name in ("fork", "popen", "posix_spawn", "system")),
    *("multiprocessing.Process", "multiprocessing.get_context", "threading.Timer"),
}
WAITS = {"communicate", "join", "wait"}


def used(tree: ast.AST) -> set[str]:
    """What a file imports, and attributes of names, such as `os.fork`; not what stands in strings for monkeypatch."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found


def limits(tree: ast.AST) -> Iterator[str]:
    """Calls that wait for a number of seconds which stands there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [one.value for one in node.keywords if one.arg == "timeout"]
            if isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
                given += node.args
            if any(isinstance(value, ast.Constant) and isinstance(value.value, int | float) for value in given):
                yield ast.unparse(node)


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_nothing_waits_for_the_clock(name: str) -> None:
    assert list(limits(TREES[name])) == [], "limits are against hanging only: processes.HANG_SECONDS"
    if name not in MAY_LOOK_AT_THE_CLOCK:
        assert "time" not in used(TREES[name])


@pytest.mark.parametrize("name", FILES)
def test_processes_are_started_in_one_place(name: str) -> None:
    if name not in MAY_START_PROCESSES:
        assert not used(TREES[name]) & STARTS


def test_every_exception_is_one() -> None:
    assert {name for name, tree in TREES.items() if "time" in used(tree)} == MAY_LOOK_AT_THE_CLOCK.keys()
    assert {name for name, tree in TREES.items() if used(tree) & STARTS} == MAY_START_PROCESSES.keys()


@pytest.mark.parametrize("line", ["thread.join(0.3)", "process.communicate(timeout=20)", "run(command, timeout=300)"])
def test_a_limit_in_seconds_is_found(line: str) -> None:
    assert list(limits(ast.parse(line))) == [line]

"""Who may import whom, read from the imports of every module."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "urlbench"
RUNNER = {
    *("run_job", "runner", "offline", "assembly", "evaluation", "evaluation_pool", "zero_shot"),
    *("worker", "checkpoint", "training_metrics"),
}
# Agents and the runner both set precisions.
TORCH_LEFT_OUT = RUNNER | {"manifest", "doctor", "precision"}
COMMAND_LINE = {
    "cli",
    "cli_baselines",
    "cli_cluster",
    "cli_compare",
    "cli_data",
    "cli_doctor",
    "cli_export",
    "cli_new",
    "cli_options",
    "__main__",
    "run_command",
    "listing",
    "status",
    "cost",
    "doctor",
    "new_agent",
    "progress",
    "retry",
}
HEAVY = {
    *("numpy", "scipy", "torch", "dm_control", "mujoco", "metaworld", "gymnasium"),
    *("pandas", "matplotlib", "rliable", "arch", "jinja2", "yaml", "tensorboard", "wandb", "submitit"),
}


def part_of(path: Path) -> str:
    """The part of the package that a module belongs to: one of its folders, runner, cli or core."""
    relative = path.relative_to(PACKAGE)
    if len(relative.parts) > 1:
        return relative.parts[0]
    if relative.stem in COMMAND_LINE:
        return "cli"
    return "runner" if relative.stem in RUNNER else "core"


def imported(tree: ast.AST, *, at_start: bool = False) -> set[str]:
    """Full names of the modules that a file imports, `at_start` those of its top level only."""
    nodes = ast.iter_child_nodes(tree) if at_start else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
FORBIDDEN = {
    "agents": {"suites", "data", "results", "statistics", "baselines", "reports", "exports", "runner", "slurm", "cli"},
    "suites": {"agents", "data", "results", "statistics", "baselines", "reports", "exports", "runner", "slurm", "cli"},
    "data": {"agents", "suites", "results", "statistics", "baselines", "reports", "exports", "slurm", "cli"},
    "results": {"agents", "suites", "data", "statistics", "baselines", "reports", "exports", "runner", "slurm", "cli"},
    "statistics": {"agents", "suites", "data", "baselines", "reports", "exports", "runner", "slurm", "cli"},
    "baselines": {"agents", "suites", "data", "reports", "exports", "runner", "slurm", "cli"},
    "reports": {"agents", "suites", "data", "exports", "runner", "slurm", "cli"},
    "exports": {"agents", "suites", "data", "statistics", "baselines", "reports", "runner", "slurm", "cli"},
    "runner": {"agents", "suites", "data", "results", "statistics", "baselines", "reports", "exports", "slurm", "cli"},
    "core": {"agents", "suites", "data", "results", "statistics", "baselines", "reports", "exports", "slurm", "cli"},
    "slurm": {"agents", "suites", "data", "results", "statistics", "baselines", "reports", "exports", "cli"},
    "cli": {"agents", "suites"},
}
# The executor names the worker's exit codes; that module imports nothing but the standard library at its start.
ALLOWED = {("urlbench/local/executor.py", "runner")}
ONLY_IN = {
    "torch": {"agents", "runner"},
    "dm_control": {"suites"},
    "mujoco": {"suites"},
    # Only its model is used: importing it imports gymnasium and libraries for windows.
    "metaworld": set(),
    "gymnasium": set(),
    "pandas": {"reports"},
    "matplotlib": {"reports"},
    "jinja2": {"reports"},
    "tensorboard": {"exports"},
    "wandb": {"exports"},
    "submitit": {"slurm"},
    # Our oracle: in tests and benchmarks.
    "rliable": set(),
}


def top(name: str) -> str:
    return name.partition(".")[0]


def name_of(path: Path) -> str:
    return f"urlbench/{path.relative_to(PACKAGE)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_parts_import_only_what_they_may(path: Path) -> None:
    own = part_of(path)
    for name in imported(TREES[path]):
        if not name.startswith("urlbench."):
            continue
        target = PACKAGE.joinpath(*name.split(".")[1:])
        file = target.with_suffix(".py") if target.with_suffix(".py").exists() else target / "__init__.py"
        if file.exists() and part_of(file) != own and (name_of(path), part_of(file)) not in ALLOWED:
            assert part_of(file) not in FORBIDDEN.get(own, set()), f"{name_of(path)} is {own} and imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    for library in {top(name) for name in imported(TREES[path])} & ONLY_IN.keys():
        if library == "torch" and path.stem in TORCH_LEFT_OUT and path.parent == PACKAGE:
            continue
        assert part_of(path) in ONLY_IN[library], f"{name_of(path)} imports {library}"


def test_every_rule_still_has_something_to_check() -> None:
    parts = {part_of(path) for path in MODULES}
    assert parts == FORBIDDEN.keys()
    assert {module.stem for module in PACKAGE.glob("*.py")} >= COMMAND_LINE | TORCH_LEFT_OUT
    libraries = {top(name) for tree in TREES.values() for name in imported(tree)}
    assert libraries >= {"torch", "dm_control", "matplotlib", "jinja2"}


@pytest.mark.parametrize(
    "module",
    [
        "cli.py",
        "cli_baselines.py",
        "cli_cluster.py",
        "cli_compare.py",
        "cli_data.py",
        "cli_doctor.py",
        "cli_export.py",
        "cli_new.py",
        "cli_options.py",
        "__init__.py",
        "errors.py",
        "exorl.py",
        "registry.py",
        "listing.py",
    ],
)
def test_the_start_of_the_command_line_imports_nothing_heavy(module: str) -> None:
    names = imported(TREES[PACKAGE / module], at_start=True)
    assert not {top(name) for name in names} & (HEAVY | {"pydantic", "rich"})
    assert {name.split(".")[1] for name in names if name.startswith("urlbench.")} <= {
        *(
            "cli_baselines",
            "cli_cluster",
            "cli_compare",
            "cli_data",
            "cli_doctor",
            "cli_export",
            "cli_new",
            "cli_options",
            "errors",
            "exorl",
            "registry",
            "__version__",
        )
    }


@pytest.mark.parametrize("folder", ["agents", "suites", "reports", "slurm"])
def test_a_linked_folder_cannot_be_imported_under_its_bare_name(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = PACKAGE.parent / folder
    if not link.exists():
        pytest.skip("a checkout without the links")
    assert link.resolve() == PACKAGE / folder
    monkeypatch.syspath_prepend(str(PACKAGE.parent))
    with pytest.raises(ImportError, match=f"urlbench.{folder}"):
        __import__(folder)

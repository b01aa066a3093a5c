"""Who may import whom, read from the imports of every module."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "urlbench"
# A folder imports only from those above it.
ORDER = (
    *("core", "episodes", "agents", "runs", "suites", "training", "results", "statistics", "data", "baselines"),
    *("exports", "local", "slurm", "reports", "cli"),
)
# What must not know each other although one stands above the other.
STRANGERS = {("suites", "agents"), ("runs", "agents"), ("cli", "agents"), ("cli", "suites")}
ONLY_IN = {
    "torch": {"core", "agents", "runs", "training", "local"},
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
HEAVY = {*ONLY_IN, "numpy", "scipy", "arch", "yaml", "pydantic", "rich"}
# What `urlbench --help` and `urlbench list` import.
LIGHT = {"core.errors", "core.exorl", "core.registry"}


def imported(tree: ast.AST, *, at_start: bool = False) -> set[str]:
    """Full names of what a file imports, `at_start` those of its top level only."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree) if at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def name_of(path: Path) -> str:
    """`core.errors` for urlbench/core/errors.py, `core` for its __init__.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in TREES if name not in ("__init__", "__main__")]


def own_modules(names: set[str]) -> set[str]:
    """Our modules among imported names, without the package's name."""
    own = {name.removeprefix("urlbench.") for name in names if name.startswith("urlbench.")}
    return own & TREES.keys()


def folder(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_folder_imports_only_from_those_above_it(module: str) -> None:
    own = folder(module)
    for name in own_modules(imported(TREES[module])):
        assert ORDER.index(folder(name)) <= ORDER.index(own), f"{module} imports {name}, which stands below it"
        assert (own, folder(name)) not in STRANGERS, f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("agents.")])
def test_families_of_agents_share_only_what_is_common(module: str) -> None:
    family = module.split(".")[1]
    for name in own_modules(imported(TREES[module])):
        assert not name.startswith("agents.") or name.split(".")[1] in ("common", family), f"{module} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = {name: own_modules(imported(tree)) - {name} for name, tree in TREES.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"circles among {sorted(left)}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_stay_where_they_belong(module: str) -> None:
    for library in {folder(name) for name in imported(TREES[module])} & ONLY_IN.keys():
        assert folder(module) in ONLY_IN[library], f"{module} imports {library}"


def test_the_contributors_page_has_the_same_order() -> None:
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)) == ORDER


def test_every_folder_has_its_place_and_every_library_is_imported() -> None:
    assert set(ORDER) == {folder(module) for module in MODULES}
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    libraries = {folder(name) for tree in TREES.values() for name in imported(tree)}
    assert libraries >= {library for library, folders in ONLY_IN.items() if folders} - {"pandas", "tensorboard"}


def test_the_start_of_the_command_line_imports_nothing_heavy() -> None:
    reached, ahead = set(), {"__init__", "cli.app"}
    while ahead:
        reached |= ahead
        names = {module: imported(TREES[module], at_start=True) for module in ahead}
        for module, found in names.items():
            assert not {folder(name) for name in found} & HEAVY, f"{module} imports a heavy library at its start"
        ahead = set().union(*map(own_modules, names.values())) - reached
    assert {module for module in reached if folder(module) not in ("cli", "__init__")} <= LIGHT | {"core"}


@pytest.mark.parametrize("name", ["agents", "suites", "reports", "slurm"])
def test_a_linked_folder_cannot_be_imported_under_its_bare_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = PACKAGE.parent / name
    if not link.exists():
        pytest.skip("a checkout without the links")
    assert link.resolve() == PACKAGE / name
    monkeypatch.syspath_prepend(str(PACKAGE.parent))
    with pytest.raises(ImportError, match=f"urlbench.{name}"):
        __import__(name)

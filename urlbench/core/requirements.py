"""What a suite needs of the installed packages: versions that are part of a result's identity, or that work at all."""

from collections.abc import Iterable
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from urlbench.core.errors import UserError
from urlbench.core.types import Suite


class Unmet(NamedTuple):
    """A requirement that the installed packages do not meet.

    Attributes:
        installed: the version that is there; None if the package is missing.
    """

    requirement: Requirement
    installed: str | None

    def __str__(self) -> str:
        found = f"installed: {self.installed}" if self.installed else "not installed"
        return f"{self.requirement} ({found})"


def unmet(requirements: Iterable[str]) -> list[Unmet]:
    """Those of `requirements`, written as pip takes them (`mujoco==3.3.0`), that are not met here."""
    found = []
    for requirement in map(Requirement, requirements):
        installed = _installed(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            found.append(Unmet(requirement, installed))
    return found


def advice(problems: Iterable[Unmet]) -> str:
    """What is wrong, and the command that mends it: `mujoco==3.3.0 (installed: 4.0.0); run: pip install ...`."""
    problems = list(problems)
    wanted = " ".join(f"'{problem.requirement}'" for problem in problems)
    return f"{', '.join(map(str, problems))}; run: pip install {wanted}"


def unmet_by_suite(suite: Suite) -> list[Unmet]:
    """What is missing of the suite's packages, or is not in a version that it was checked with."""
    # Packages without a requirement are needed in any version.
    needed = {canonicalize_name(Requirement(line).name): line for line in (*suite.packages, *suite.requirements)}
    return unmet(needed.values())


def check_requirements(suite: Suite) -> None:
    """UserError if a package is missing, or is not in a version that the suite was checked with."""
    if problems := unmet_by_suite(suite):
        raise UserError(f"suite {suite.name!r} needs the packages that it was checked with: {advice(problems)}")


def suite_versions(suite: Suite) -> dict[str, str]:
    """The installed versions of `suite.packages`, as they are part of a result's identity.

    Raises:
        UserError: if a package is missing, or is not in a version that the suite was checked with.
    """
    check_requirements(suite)
    return {package: metadata.version(package) for package in suite.packages}


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

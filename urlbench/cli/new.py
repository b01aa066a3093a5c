"""`urlbench new`: files to start one's own agent or suite from."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="new",
    help="Write a working agent or suite of your own, to start from.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def agent(
    name: Annotated[str, typer.Argument(help="its name, such as my-agent; the file is my_agent.py")],
    backbone: Annotated[
        Literal["ddpg", "dreamer"], typer.Option("--backbone", help="What learns from your intrinsic reward.")
    ] = "ddpg",
) -> None:
    """Write an agent in one file and its test into this folder; both work as they are, nothing is overwritten."""
    from urlbench.cli.starters import write_agent

    files = write_agent(name, Path(), backbone)
    common = f"--agent {name} --plugin {files.plugin}"
    print(f"{files.plugin}: the agent; change its class Reward")
    print(f"{files.test}: its test")
    print("next:")
    print(f"  python -m pytest {files.test}")
    print(f"  urlbench run --suite urlb-states {common} --domains walker --tasks walker_stand --seeds 1 --preset smoke")


@app.command()
def suite(name: Annotated[str, typer.Argument(help="its name, such as my-suite; the file is my_suite.py")]) -> None:
    """Write a suite in one file and its test into this folder; both work as they are, nothing is overwritten."""
    from urlbench.cli.starters import write_suite

    files = write_suite(name, Path())
    common = f"--suite {name} --plugin {files.plugin} --preset smoke"
    print(f"{files.plugin}: the suite; change its environment, tasks and budgets")
    print(f"{files.test}: its test")
    print("next:")
    print(f"  python -m pytest {files.test}")
    print(f"  urlbench run {common} --agent random --seeds 2")
    print(f"  urlbench report {common}")

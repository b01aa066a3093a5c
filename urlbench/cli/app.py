"""The command line. Nothing heavy is imported before a command needs it, so that help and lists come at once."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from urlbench import __version__
from urlbench.cli.baselines import app as baselines_app, import_results
from urlbench.cli.cluster import cancel
from urlbench.cli.compare import compare
from urlbench.cli.data import app as data_app
from urlbench.cli.doctor import doctor
from urlbench.cli.export import export
from urlbench.cli.listing import list_command, show
from urlbench.cli.new import app as new_app
from urlbench.cli.report import report, validate
from urlbench.cli.retry import retry
from urlbench.cli.run import plan, run
from urlbench.cli.status import logs, status
from urlbench.core.errors import IncompleteError, UserError

app = typer.Typer(
    name="urlbench",
    help="Pretrain, fine-tune, evaluate and report agents of unsupervised reinforcement learning.",
    epilog="Exit codes: 0 complete, 1 failures, 2 usage, 3 incomplete.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # its own markup would swallow [default: ...]
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of `urlbench --help`.
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "report": report,
    "status": status,
    "plan": plan,
    "compare": compare,
    "validate": validate,
    "list": list_command,
    "show": show,
    "logs": logs,
    "cancel": cancel,
    "retry": retry,
    "export": export,
    "import": import_results,
    "doctor": doctor,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(baselines_app)
app.add_typer(data_app)
app.add_typer(new_app)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        print(f"urlbench {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors that are the user's to solve are one line on stderr, without a traceback."""
    try:
        app(args=arguments, prog_name="urlbench")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, IncompleteError) else 2)
    sys.exit(0)

"""Writes results in the form of another program."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from urlbench.core.durable import write_atomic
from urlbench.core.errors import UserError, unknown_name
from urlbench.exports.series import series_of
from urlbench.exports.table import long_csv
from urlbench.results.cells import Results
from urlbench.results.validation import check

Program = Literal["csv", "tensorboard", "wandb"]


def export(results: Results, program: str, out: Path, *, allow_partial: bool = False) -> list[Path]:
    """Write the runs that count; the files, or for W&B the folders.

    Args:
        results: what to export.
        program: one of `Program`.
        out: a file for csv, else a folder; made where it is missing.
        allow_partial: export what there is.

    Raises:
        UserError: if the package that it takes is not installed, or `out` cannot be written.
        IncompleteError: as `validation.check` does.
    """
    if program not in get_args(Program):
        raise unknown_name("program", program, get_args(Program), where="to export to")
    if program != "csv" and find_spec(program) is None:
        raise UserError(
            f"an export to {program} takes the package {program}, which is not installed; run: "
            f"pip install 'urlbench[{program}]'"
        )
    check(results, allow_partial=allow_partial)
    try:
        (out.parent if program == "csv" else out).mkdir(parents=True, exist_ok=True)
        if program == "csv":
            write_atomic(out, long_csv(results), remedy="export again")
            return [out]
        if program == "tensorboard":
            from urlbench.exports.tensorboard import write_events

            return [write_events(series, out) for series in series_of(results)]
        from urlbench.exports.weights_and_biases import write_offline_run

        return [write_offline_run(series, out) for series in series_of(results)]
    except OSError as error:
        raise UserError(f"cannot write the export to {str(out)!r} ({error.strerror}); give --out another.") from error

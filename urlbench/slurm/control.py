"""Taking runs out of Slurm's queue."""

from collections.abc import Sequence
from pathlib import Path

from urlbench.slurm.queue import Queue, call
from urlbench.slurm.records import Records

_MOST_IDS = 500  # of one command line


def cancel(root: Path, paths: Sequence[str]) -> list[str]:
    """Cancel the elements that hold these runs; a line about each, also about other runs that share an element.

    Runs that have begun save and end, as far as Slurm gives them the time; nothing is lost.

    Args:
        root: folder of all runs.
        paths: of run directories, relative to `root`.

    Raises:
        UserError: if Slurm does not answer.
    """
    records = Records(root)
    with records.lock():
        known = records.all()
        queue = Queue.look().of_runs(known)
        places = {queue[path][0]: queue[path][1] for path in paths if path in queue}
        ids = [entry.job_id for entry in places.values()]
        for start in range(0, len(ids), _MOST_IDS):
            call("scancel", *ids[start : start + _MOST_IDS])
    elements = {record.name: record.elements for record in known}
    return [
        f"cancelled: {entry.job_id}, {', '.join(elements[place.array][place.element])}"
        for place, entry in places.items()
    ]

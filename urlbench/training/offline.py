"""Pretraining from a data set: updates and nothing else, and the continuing of an interrupted run.

Source: offline pretraining of Choreographer (Mazzaglia et al. 2023, sec. 4.1, app. B.2): the first files of a data set
by name, until they hold the transitions asked for, are the replay, and every update samples from all of it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from urlbench.core.errors import UserError
from urlbench.core.jobs import JobSpec
from urlbench.episodes.datasets import Dataset
from urlbench.episodes.replay import Replay
from urlbench.training.learning import Interrupted, LearningLoop

LOG_EVERY_UPDATES = 100


def fill_replay(replay: Replay, folder: str | None, spec: JobSpec, stop: Callable[[], str] = lambda: "") -> None:
    """Put the data that the job's identity names into `replay`, every file checked against it.

    Args:
        replay: empty, without a folder.
        folder: of the data set.
        spec: of the job; `data` is the fingerprint and `protocol.data_transitions` says how much is taken.
        stop: as in `Surroundings`; asked before every file.

    Raises:
        UserError: if there is no such data set, if it is another one by now, or if a file of it is damaged.
        Interrupted: if `stop` says so.
    """
    assert folder is not None, "a job that pretrains from data knows where they are"
    dataset, transitions = Dataset(Path(folder)), spec.protocol.data_transitions
    if dataset.fingerprint(transitions) != spec.data:
        raise UserError(
            f"the data set {folder} is not the one that this run was planned with: its fingerprint is another; "
            "restore it, or run with --rerun stale to move this run aside and pretrain on what is there now."
        )
    for file in dataset.first_files(transitions):
        if reason := stop():
            raise Interrupted(reason)
        replay.add_file(dataset.read(file), dataset.buffer / file.name, file.length)


class OfflineLoop(LearningLoop):
    """An offline pretraining under way; its replay holds the data."""

    @property
    def progress(self) -> int:
        """Updates so far."""
        return self._updates

    def run(self) -> None:
        """Go on to the end of the budget.

        Raises:
            Interrupted: if the surroundings asked to stop; a checkpoint is written.
            UserError: if metrics are not finite, an episode is too short, or a file cannot be written.
        """
        for batch in self._schedule.sampled.values():
            if short := self._replay.never_sampled(batch):
                raise UserError(
                    f"{short} of the data set's episodes have fewer than the {batch.least_steps} steps that the "
                    "agent's batches ask for; choose a smaller batch_length, or other data."
                )
        while self.progress < self._budget:
            self._maybe_checkpoint()
            self._surroundings.heartbeat.beat(self.progress)
            self._update()
            if self.progress % LOG_EVERY_UPDATES == 0 or self.progress == self._budget:
                self._log({"updates": self.progress}, f"in the updates up to {self.progress}")
            self._save_due_snapshots()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; the replay holds the same data as then."""
        super().restore(state)
        self._checkpointed = (self.progress, 0)

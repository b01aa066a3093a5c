"""What squeue says of jobs, read: elements of arrays in all its ways to write them, and every state and reason."""

import pytest
from slurm_fakes import FakeSlurm, fake_slurm

from urlbench.core.errors import UserError
from urlbench.slurm.grouping import Place
from urlbench.slurm.queue import Entry, Queue

__all__ = ["fake_slurm"]

NAME = "urlbench-0123456789"


@pytest.mark.parametrize(
    ("expression", "indices"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-3%2", [0, 1, 2, 3]),
        ("5,8-9,20", [5, 8, 9, 20]),
        ("1-9:4", [1, 5, 9]),
        ("1-9:3%8", [1, 4, 7]),
        ("0,10-20:5,30%1", [0, 10, 15, 20, 30]),
    ],
)
def test_elements_that_wait_are_one_line(fake_slurm: FakeSlurm, expression: str, indices: list[int]) -> None:
    fake_slurm.write("queue", f"12|{expression}|PENDING|Priority|{NAME}\n12|99|RUNNING|None|{NAME}\n")
    waiting = {Place(NAME, index): Entry(f"12_{index}", "PENDING", "Priority") for index in indices}
    assert Queue.look().entries == waiting | {Place(NAME, 99): Entry("12_99", "RUNNING", "None")}


def test_a_plain_job_is_its_only_element(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("queue", f"12|N/A|PENDING|Priority|{NAME}\n")
    assert Queue.look().entries == {Place(NAME, 0): Entry("12", "PENDING", "Priority")}


@pytest.mark.parametrize("expression", ["1,3,5,...", "", "0x55", "a-b"])
def test_elements_that_nobody_can_read_are_told_not_guessed(fake_slurm: FakeSlurm, expression: str) -> None:
    fake_slurm.write("queue", f"12|{expression}|PENDING|Priority|{NAME}\n")
    with pytest.raises(UserError, match=r"^squeue calls elements of an array .* which cannot be read; update Slurm"):
        Queue.look()

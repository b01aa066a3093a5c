"""A worker that behaves as the test asks, in milliseconds: python stub_worker.py RUN_DIR --runs ROOT …

$STUB_BEHAVIOUR is a JSON object from parts of paths to a behaviour; a run that none fits is done at once. What workers
do is noted in $STUB_LOG, in its order.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
log = Path(os.environ["STUB_LOG"])
parent = os.getppid()


def note(event: str) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LP_NUM_THREADS", "TMPDIR")
    row = {"event": event, "run": str(folder), "arguments": sys.argv[1:]}
    row["TMPDIR_exists"] = Path(os.environ.get("TMPDIR", "")).is_dir()
    with log.open("a") as file:
        file.write(json.dumps(row | {name: os.environ.get(name) for name in names}) + "\n")


def write_status(state: str, message: str = "") -> None:
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": state, "message": message}))


def stop(number: int, frame: object) -> None:
    write_status("interrupted")
    note("end")
    sys.exit(75)


def wait(for_starts: float = float("inf")) -> None:
    """Until so many workers have been started in all, or whoever started this one is gone."""
    while os.getppid() == parent and log.read_bytes().count(b'"event": "start"') < for_starts:
        time.sleep(0.02)


behaviours = json.loads(os.environ["STUB_BEHAVIOUR"])
behaviour = next((value for part, value in behaviours.items() if part in str(folder)), "done")
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else stop)
note("start")
if behaviour in ("wait", "deaf"):
    print("waiting", flush=True)
    wait()
elif behaviour == "meet":
    wait(for_starts=2)
elif behaviour == "fail":
    write_status("failed", "the reason in status.json")
    sys.exit(1)
elif behaviour == "refuse":
    print("an earlier line\nthe last line of the log\n", flush=True)
    sys.exit(1)
elif behaviour == "announce":
    os.kill(parent, signal.SIGUSR2)
elif behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
write_status("done")
(folder / "DONE").write_text("{}")
note("end")

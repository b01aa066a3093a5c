"""A worker that behaves as the test asks, in milliseconds: python stub_worker.py RUN_DIR --runs ROOT …

$STUB_BEHAVIOUR is a JSON object from parts of paths to a behaviour; a run that none fits is done at once.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
log = Path(os.environ["STUB_LOG"])


def note(event: str) -> None:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LP_NUM_THREADS", "TMPDIR")
    row = {"event": event, "run": str(folder), "time": time.monotonic(), "arguments": sys.argv[1:]}
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


behaviours = json.loads(os.environ["STUB_BEHAVIOUR"])
behaviour = next((value for part, value in behaviours.items() if part in str(folder)), "done")
signal.signal(signal.SIGTERM, stop)
note("start")
if behaviour == "wait":
    print("waiting", flush=True)
    time.sleep(60)
elif behaviour == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("deaf")
    time.sleep(60)
elif behaviour == "fail":
    write_status("failed", "the reason in status.json")
    sys.exit(1)
elif behaviour == "slow":
    time.sleep(1.0)
elif behaviour == "refuse":
    print("an earlier line\nthe last line of the log\n", flush=True)
    sys.exit(1)
elif behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.1)
write_status("done")
(folder / "DONE").write_text("{}")
note("end")

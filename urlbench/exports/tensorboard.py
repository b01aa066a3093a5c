"""TensorBoard event files, one for each run, whose bytes depend on nothing but the run."""

import io
import json
from datetime import datetime
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from urlbench.core.durable import write_atomic
from urlbench.exports.series import Series

# TensorBoard finds its files by this word; what usually follows it is the time and the machine.
_FILE_NAME = "events.out.tfevents.0.urlbench"
_REMEDY = "export again"


def write_events(series: Series, folder: Path) -> Path:
    """Write one run below `folder`, under the path it has among all runs; the file.

    Every event has the time at which the run ended.

    Raises:
        UserError: if the file cannot be written.
    """
    time = datetime.fromisoformat(series.run.finished).timestamp()
    text = io.BytesIO()
    writer = RecordWriter(text)
    events = [
        Event(wall_time=time, file_version="brain.Event:2"),
        Event(wall_time=time, summary=Summary(value=[_settings(series)])),
        *(
            Event(
                wall_time=time,
                step=step,
                summary=Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]),
            )
            for step, values in series.steps
        ),
    ]
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    path = folder / series.run.path / _FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue(), remedy=_REMEDY)
    return path


def _settings(series: Series) -> Summary.Value:
    """What the run was, as a text that TensorBoard shows."""
    # Four spaces are a code block in its Markdown.
    lines = json.dumps(series.settings, indent=2, ensure_ascii=False, sort_keys=True).splitlines()
    return Summary.Value(
        tag="settings",
        metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
        tensor=TensorProto(dtype=DT_STRING, string_val=["\n".join(f"    {line}" for line in lines).encode()]),
    )

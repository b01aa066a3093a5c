"""What makes two jobs or two configurations the same: hashes of canonical JSON."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from urlbench.core.jobs import JobSpec


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and without spaces; NaN and infinities are refused with a ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(value: Any, length: int) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def job_id(spec: JobSpec) -> str:
    """The first 16 hex digits of the SHA-256 of the spec's canonical JSON."""
    return _digest(spec.model_dump(mode="json"), 16)


def config_hash(config: dict[str, Any]) -> str:
    """The first 8 hex digits of the SHA-256 of a resolved agent configuration, as used in paths and tables."""
    return _digest(config, 8)


def differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of the values that differ between two, such as the contents of specs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix

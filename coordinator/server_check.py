"""Whether a server can keep what hpopt acknowledges: what is refused, and what is only warned of."""

from collections.abc import Mapping
from typing import Any

OLDEST = (7, 0)
VOLATILE = "HPOPT_ALLOW_VOLATILE"
"""Environment variable that turns the refusals about lost data into warnings."""


def problems(info: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What INFO tells: (reasons to refuse the server in any case, reasons to refuse it unless volatile is allowed)."""
    fatal = [text for wrong, text in _fatal(info) if wrong]
    volatile = [text for wrong, text in _volatile(info) if wrong]
    return fatal, volatile


def _fatal(info: Mapping[str, Any]) -> list[tuple[bool, str]]:
    version = str(info.get("valkey_version") or info.get("redis_version") or "0.0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return [
        (numbers < OLDEST, f"the server is version {version}: hpopt needs {OLDEST[0]}.{OLDEST[1]} or later"),
        (bool(info.get("cluster_enabled")), "Redis Cluster is not supported yet: use a single server, or Sentinel"),
        (info.get("role", "master") != "master", "the server is a replica: give the URL of the primary"),
    ]


def _volatile(info: Mapping[str, Any]) -> list[tuple[bool, str]]:
    policy = info.get("maxmemory_policy", "noeviction")
    status = info.get("aof_last_write_status", "ok")
    return [
        (policy != "noeviction", f"maxmemory-policy is {policy}: set it to noeviction, or studies lose keys"),
        (not info.get("aof_enabled"), "the append-only file is off: set appendonly yes, or a restart loses all"),
        (status != "ok", f"the last write of the append-only file failed ({status}): look at the server's disk"),
    ]

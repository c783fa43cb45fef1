"""
Whether the proxies run what they were given.

Each file names its version, and Envoy says of each route configuration and of
its clusters which version it runs. One that it refused is older than the file's.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx

from luff.lab.state import LabState, WorkloadState

__all__ = ["refused"]

TAKES_WITHIN_S = 1.0
LOOK_EVERY_S = 0.05
_ASK_WITHIN_S = 2.0
_REASON_MOST = 400
_CLUSTERS = "cds.json"
_NEXT_ENTRY = re.compile(r"\n\[\d{4}-")
_PLACE = re.compile(r"VirtualHosts\[(\d+)\].*?Routes\[(\d+)\]")


def refused(workload: WorkloadState, state: LabState) -> list[str]:
    """Return what of its configuration the proxy of *workload* does not run, and what it says of that."""
    folder = Path(state.directory) / "proxies" / workload.full_name
    until_s = time.monotonic() + TAKES_WITHIN_S
    while True:
        running = _running(workload.admin)
        if running is None:
            return [f"the Envoy of {workload.full_name} at {workload.admin} does not answer"]
        stale = sorted(name for name, version in _given(folder).items() if running.get(name) != version)
        if not stale:
            return []
        if time.monotonic() > until_s:
            break
        time.sleep(LOOK_EVERY_S)
    why = _last_refusal(Path(state.logs) / f"{workload.full_name}.envoy.log")
    return [
        f"{workload.full_name} refuses its {'clusters' if name == _CLUSTERS else f'routes {name}'} "
        f"and keeps those it had{_culprit(folder, name, why)}: {why}"
        for name in stale
    ]


def _given(folder: Path) -> dict[str, str]:
    """Return the versions in the files that the proxy reads, by route configuration, or by file for its clusters."""
    bootstrap = (folder / "bootstrap.json").read_text(encoding="utf-8")
    found = {}
    for path in (path for path in folder.glob("?ds*.json") if json.dumps(str(path)) in bootstrap):
        content = json.loads(path.read_text(encoding="utf-8"))
        name = path.name if path.name == _CLUSTERS else str(content["resources"][0]["name"])
        # A lab that an earlier luff has started names no versions: nothing can be said of it.
        if "version_info" in content:
            found[name] = str(content["version_info"])
    return found


def _running(admin: str) -> dict[str, str] | None:
    try:
        dump = httpx.get(f"http://{admin}/config_dump", timeout=_ASK_WITHIN_S, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    found: dict[str, str] = {}
    for part in dump.get("configs", []):
        if str(part.get("@type", "")).endswith("ClustersConfigDump"):
            found[_CLUSTERS] = str(part.get("version_info", ""))
        routes: list[dict[str, Any]] = part.get("dynamic_route_configs") or []
        for each in routes:
            found[str(each["route_config"]["name"])] = str(each.get("version_info", ""))
    return found


def _last_refusal(log: Path) -> str:
    """Return what Envoy said when it last refused something: after the configuration itself, which it repeats."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    _, found, after = text.rpartition("update rejected:")
    said = _NEXT_ENTRY.split(after)[0].rpartition("\n: ")[2].strip() if found else ""
    return said[-_REASON_MOST:] or "its log does not say why"


def _culprit(folder: Path, name: str, why: str) -> str:
    """Return, as a part of a sentence, the VirtualService of the route that *why* counts out; empty without one."""
    place = _PLACE.search(why)
    if place is None:
        return ""
    for path in folder.glob("rds-*.json"):
        [configuration] = json.loads(path.read_text(encoding="utf-8"))["resources"]
        if configuration["name"] != name:
            continue
        try:
            route = configuration["virtual_hosts"][int(place[1])]["routes"][int(place[2])]
            made_from = str(route["metadata"]["filter_metadata"]["istio"]["config"]).split("/")
        except (IndexError, KeyError):
            return ""
        return f", because of VirtualService {made_from[-3]}/{made_from[-1]}"
    return ""

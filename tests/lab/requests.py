"""What is asked of an API server in tests: bodies, headers, watches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

ISTIO = "/apis/networking.istio.io/v1"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}


def virtual_service(name: str = "reviews", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, **metadata},
        "spec": {
            "hosts": ["reviews"],
            "http": [{"name": "main", "route": [{"destination": {"host": "reviews", "subset": "v1"}, "weight": 20}]}],
        },
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@contextmanager
def watching(http: httpx.Client, path: str, **query: Any) -> Iterator[Iterator[dict[str, Any]]]:
    with http.stream("GET", path, params={"watch": "true", "timeoutSeconds": "20", **query}) as response:
        assert response.status_code == 200
        yield (json.loads(line) for line in response.iter_lines())

"""No injection where nobody could clean up: the reaper's heartbeat, and what is said without one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from luff.errors import NoGuard
from luff.heartbeat import HEARTBEAT, HEARTBEAT_S, check_heartbeat
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.lever import SYSTEM_NAMESPACE
from luff.mesh.kubernetes import KubernetesMesh


def _beat(server: ApiServer, age_s: float) -> None:
    renewed = datetime.now(UTC) - timedelta(seconds=age_s)
    server.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}})
    server.store.put(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": HEARTBEAT, "namespace": SYSTEM_NAMESPACE},
            "spec": {"holderIdentity": "r", "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
        }
    )


def test_a_fresh_heartbeat_will_do(server: ApiServer, adapter: KubernetesMesh) -> None:
    _beat(server, age_s=1)

    asyncio.run(check_heartbeat(adapter))


def test_an_old_heartbeat_will_not(server: ApiServer, adapter: KubernetesMesh) -> None:
    _beat(server, age_s=HEARTBEAT_S + 60)

    with pytest.raises(NoGuard, match=r"[89][0-9] s old") as caught:
        asyncio.run(check_heartbeat(adapter))
    assert "--accept-inert-leftover" in str(caught.value.next_step)


def test_a_heartbeat_that_cannot_be_read_will_not(server: ApiServer, adapter: KubernetesMesh) -> None:
    _beat(server, age_s=1)
    server.misbehaviour.add([Rule("status", plural="leases", code=403)])

    with pytest.raises(NoGuard, match="cannot be read"):
        asyncio.run(check_heartbeat(adapter))

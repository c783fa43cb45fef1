"""What cannot be configured takes nothing else with it, and what a proxy refuses is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from luff.decide import Proxy
from luff.lab.envoy import ProxyPlan, resources
from luff.lab.objects import Store
from luff.lab.pushing import Pusher, configure
from luff.lab.state import LabState
from luff.mesh_state import Endpoint, MeshState, Service
from luff.model import Object
from tests.lab.conftest import Home, until, workload

BACK = Service("back", "shop", 8080, (Endpoint("127.0.0.1", 1, {"version": "v1"}),))


def _made(kind: str, name: str, spec: Any, created: str = "2026-01-01T00:00:00Z") -> Object:
    metadata = {"name": name, "namespace": "shop", "creationTimestamp": created}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _plan(tmp_path: Path, **more: Any) -> ProxyPlan:
    return ProxyPlan("luff-0", "luff", 0, Proxy({}, "shop"), tmp_path, tmp_path / "log", **more)


ROUTES = _made(
    "VirtualService", "back", {"hosts": ["back"], "http": [{"name": "r", "route": [{"destination": {"host": "back"}}]}]}
)
GATEWAY = _made("Gateway", "gw", {"servers": [{"port": {"number": 80}, "hosts": ["*"]}]})
BAD: list[tuple[str, Object]] = [
    ("destination_rules", _made("DestinationRule", "bad", {"host": "back", "trafficPolicy": {"portLevelSettings": [{"port": 8080}]}})),
    ("destination_rules", _made("DestinationRule", "bad", {"host": "back", "trafficPolicy": {"connectionPool": {"tcp": {"connectTimeout": "5"}}}})),
    ("virtual_services", _made("VirtualService", "bad", {"hosts": 7})),
    ("gateways", _made("Gateway", "bad", {"servers": [{"port": 80}]})),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "bad"), BAD)
@pytest.mark.parametrize("created", ["2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"], ids=["older", "newer"])
def test_an_object_of_which_nothing_can_be_made_is_left_out(
    tmp_path: Path, kind: str, bad: Object, created: str
) -> None:
    plans = [_plan(tmp_path, proxy_port=1), _plan(tmp_path, gateway_port=2)]
    plans[1] = replace(plans[1], name="ingress-0")
    good = MeshState((BACK,), (ROUTES,), (), (GATEWAY,))
    bad = {**bad, "metadata": {**bad["metadata"], "creationTimestamp": created}}

    made = configure(plans, replace(good, **{kind: (*getattr(good, kind), bad)}))

    assert made.files == {plan.name: resources(plan, good) for plan in plans}
    [said] = made.skipped
    assert said.startswith(f"{bad['kind']} shop/bad: ")


def test_where_all_is_well_nothing_is_left_out(tmp_path: Path) -> None:
    plan = _plan(tmp_path, proxy_port=1)
    state = MeshState((BACK,), (ROUTES,), (), (GATEWAY,))

    made = configure([plan], state)

    assert (made.files, made.skipped) == ({"luff-0": resources(plan, state)}, ())


def test_what_could_not_be_written_is_tried_again_and_keeps_nothing_from_the_other_proxies(tmp_path: Path) -> None:
    store = Store()
    store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    store.put(ROUTES)
    stuck, other = (replace(_plan(tmp_path / name, proxy_port=1), name=name) for name in ("stuck", "other"))
    in_the_way = stuck.folder / "rds-http_proxy.new"
    changed = {"spec": {"hosts": ["back"], "http": [{**ROUTES["spec"]["http"][0], "name": "after"}]}}

    def has_it(plan: ProxyPlan) -> bool:
        return '"after"' in (plan.folder / "rds-http_proxy.json").read_text()

    pusher = Pusher(store, [stuck, other], (BACK,))
    pusher.start()
    try:
        in_the_way.mkdir()
        store.put({**ROUTES, **changed})

        until(lambda: has_it(other), what="the change at the other proxy")
        assert not has_it(stuck)
        in_the_way.rmdir()
        until(lambda: has_it(stuck), what="the change, although nothing has changed since")
    finally:
        pusher.stop()


def _api(state: LabState) -> httpx.Client:
    user = yaml.safe_load(Path(state.kubeconfig).read_text())["users"][0]["user"]
    headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/json"}
    base = f"http://{state.api}/apis/networking.istio.io/v1/namespaces/shop"
    return httpx.Client(base_url=base, headers=headers, trust_env=False)


def test_a_bad_object_neither_stops_the_others_nor_goes_unsaid(home: Home) -> None:
    state = home.up(home.write(workload()))
    admin = next(each.admin for each in state.workloads if each.name == "luff")

    def dump() -> str:
        return httpx.get(f"http://{admin}/config_dump?resource=dynamic_route_configs", trust_env=False).text

    def name_route(name: str, **more: Any) -> None:
        route = {"name": name, "route": [{"destination": {"host": "back"}}]}
        patch = {"spec": {"http": [more, route] if more else [route]}}
        types = {"Content-Type": "application/merge-patch+json"}
        assert api.patch("/virtualservices/back", json=patch, headers=types).is_success

    def status() -> dict[str, Any]:
        done = home.luff("lab", "status", "-o", "json")
        return {**json.loads(done.out), "code": done.code}

    with _api(state) as api:
        assert api.post("/gateways", json=_made("Gateway", "typo", {"servers": [{"port": 80}]})).is_success
        name_route("after-the-typo")
        until(lambda: '"after-the-typo"' in dump(), what="the change at the proxy")
        said = until(lambda: (found := status())["troubles"] and found, what="a trouble said")
        assert said["code"] == 1
        assert "Gateway shop/typo" in str(said["troubles"])
        assert "Gateway shop/typo" in (home.folder / "lab" / "supervisor.log").read_text()

        # What Envoy refuses is the proxy's to say: it keeps what it had.
        name_route("never", match=[{"uri": {"prefix": "/a"}}], redirect={"uri": "/b", "redirectCode": 304})
        said = until(lambda: "refuses" in str((found := status())["troubles"]) and found, what="a refusal said")
        [refusal] = [text for text in said["troubles"] if text.startswith("luff-0")]
        assert "luff-0 refuses its routes http_proxy and keeps those it had" in refusal
        assert "because of VirtualService shop/back" in refusal
        assert "reason: is required" in refusal
        assert '"never"' not in dump()
        assert '"after-the-typo"' in dump()

        assert api.delete("/gateways/typo").is_success
        name_route("well-again")
        until(lambda: status()["code"] == 0, what="all well")
        assert '"well-again"' in dump()
    assert home.luff("lab", "down").code == 0

"""kubectl works against the lab's API server as against any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from luff.lab.api import ApiServer

KUBECTL = Path(sys.executable).parent / "kubectl"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
"""

Kubectl: TypeAlias = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def _kubectl_is_here() -> None:
    if not KUBECTL.exists():
        message = "kubectl is not installed beside this Python"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    server = ApiServer(token="a-token-of-the-tests", validate=lambda object_: ([], ["mind the gap"]))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def environment(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    server.write_kubeconfig(home / "config")
    nowhere = "http://127.0.0.1:9"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "KUBECACHEDIR": str(home / "cache"),
        "KUBECONFIG": str(home / "config"),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
    }


@pytest.fixture
def kubectl(environment: dict[str, str], server: ApiServer) -> Iterator[Kubectl]:
    def run(*arguments: str, given: str = "", code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [KUBECTL, *arguments],
            input=given,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    yield run
    for plural in ("virtualservices", "services", "configmaps"):
        for object_ in server.store.objects(plural, "default"):
            run("delete", plural, object_["metadata"]["name"])


def _virtual_service(weight: int = 20) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {{host: reviews, subset: v1}}
      weight: {weight}
"""


def test_apply_creates_configures_and_leaves_alone(kubectl: Kubectl) -> None:
    told = [kubectl("apply", "-f", "-", given=_virtual_service(weight)) for weight in (20, 20, 30)]
    tried = kubectl("apply", "-f", "-", "--dry-run=server", given=_virtual_service(40))

    assert [line.split()[1] for line in told] == ["created", "unchanged", "configured"]
    assert "Warning: mind the gap" in told[0]
    assert "configured (server dry run)" in tried
    assert kubectl("get", "vs", "reviews", "-o", "jsonpath={.spec.http[0].route[0].weight}") == "30"


def test_apply_merges_the_ports_of_a_service_by_number(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=SERVICE)
    kubectl("patch", "svc", "reviews", "-p", '{"spec": {"ports": [{"name": "extra", "port": 81}]}}')
    kubectl("apply", "-f", "-", given=SERVICE.replace("9080", "9081"))

    assert kubectl("get", "svc", "reviews", "-o", "jsonpath={.spec.ports[*].port}").split() == ["81", "9081"]


def test_get_and_describe_show_what_people_look_for(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=_virtual_service())

    header, row = kubectl("get", "vs", "-A").splitlines()
    described = kubectl("describe", "vs", "reviews")

    assert header.split() == ["NAMESPACE", "NAME", "GATEWAYS", "HOSTS", "AGE"]
    assert row.split()[:3] == ["default", "reviews", '["reviews"]']
    assert "Subset:  v1" in described
    assert "Events:" in described


def test_the_resources_are_known_by_all_their_names(kubectl: Kubectl) -> None:
    names = kubectl("api-resources", "--api-group=networking.istio.io", "-o", "name").split()

    assert set(names) == {
        f"{plural}.networking.istio.io"
        for plural in ("destinationrules", "envoyfilters", "gateways", "serviceentries", "sidecars", "virtualservices")
    }
    assert "KIND:       VirtualService" in kubectl("explain", "virtualservice")


def test_patch_label_annotate_and_edit_change_one_object(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=_virtual_service())

    kubectl("label", "vs", "reviews", "app=reviews")
    kubectl("annotate", "vs", "reviews", "example.org/note=x")
    kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec": {"gateways": ["mesh"]}}')
    kubectl("patch", "vs", "reviews", "--type=json", "-p", '[{"op": "remove", "path": "/spec/http/0/route/0/weight"}]')
    kubectl("edit", "vs", "reviews", KUBE_EDITOR="sed -i -e 's/subset: v1/subset: v2/'")

    found = json.loads(kubectl("get", "vs", "-l", "app in (reviews)", "-o", "json"))["items"][0]
    assert found["metadata"]["annotations"]["example.org/note"] == "x"
    assert found["spec"] == {
        "gateways": ["mesh"],
        "hosts": ["reviews"],
        "http": [{"route": [{"destination": {"host": "reviews", "subset": "v2"}}]}],
    }


def test_a_failed_test_and_a_missing_object_are_told_as_always(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=_virtual_service())

    failed = '[{"op": "test", "path": "/metadata/uid", "value": "x"}]'
    assert "The request is invalid" in kubectl("patch", "vs", "reviews", "--type=json", "-p", failed, code=1)
    assert "Error from server (NotFound)" in kubectl("get", "vs", "other", code=1)


def test_replace_with_a_stale_version_conflicts(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=_virtual_service())
    read = json.loads(kubectl("get", "vs", "reviews", "-o", "json"))
    kubectl("label", "vs", "reviews", "a=b")
    read["spec"]["hosts"] = ["other"]

    told = kubectl("replace", "-f", "-", given=json.dumps(read), code=1)

    assert "the object has been modified" in told


def test_what_kubectl_makes_itself_arrives(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "made", "--from-literal=key=välue")
    kubectl("create", "service", "clusterip", "made", "--tcp=80:http")
    kubectl("create", "namespace", "made")

    assert kubectl("get", "cm", "made", "-o", "jsonpath={.data.key}") == "välue"
    ports = json.loads(kubectl("get", "svc", "made", "-o", "jsonpath={.spec.ports}"))
    assert ports == [{"name": "80-http", "port": 80, "protocol": "TCP", "targetPort": "http"}]
    assert kubectl("auth", "can-i", "delete", "pods").strip() == "yes"
    assert 'namespace "made" deleted' in kubectl("delete", "namespace", "made")


def test_server_side_apply_tells_conflicts_by_manager(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", given=_virtual_service())

    second = ("apply", "--server-side", "--field-manager=two", "-f", "-")
    told = kubectl(*second, given=_virtual_service(30), code=1)
    kubectl(*second, "--force-conflicts", given=_virtual_service(30))

    assert 'conflict with "one": .spec.http' in told


def test_a_watch_shows_changes_as_they_happen(kubectl: Kubectl, environment: dict[str, str], server: ApiServer) -> None:
    kubectl("apply", "-f", "-", given=_virtual_service())
    command = [str(KUBECTL), "get", "vs", "reviews", "--watch", "--output-watch-events"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        lines = [watch.stdout.readline(), watch.stdout.readline()]
        kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec": {"gateways": ["edge"]}}')
        lines.append(watch.stdout.readline())
        kubectl("delete", "vs", "reviews")
        lines.append(watch.stdout.readline())
        watch.terminate()

    assert [line.split()[0] for line in lines] == ["EVENT", "ADDED", "MODIFIED", "DELETED"]
    assert '["edge"]' in lines[2]


def test_wait_ends_when_the_object_is_as_asked(kubectl: Kubectl, environment: dict[str, str]) -> None:
    kubectl("apply", "-f", "-", given=_virtual_service())
    command = [str(KUBECTL), "wait", "vs/reviews", "--for=jsonpath={.spec.gateways[0]}=late", "--timeout=30s"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as waiting:
        kubectl("patch", "vs", "reviews", "--type=merge", "-p", '{"spec": {"gateways": ["late"]}}')
        told, _ = waiting.communicate(timeout=60)

    assert told.strip() == "virtualservice.networking.istio.io/reviews condition met"
    assert waiting.returncode == 0

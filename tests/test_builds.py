"""What was tested, as pods say: their image with its digest, and their revision."""

from __future__ import annotations

from typing import Any

import pytest

from luff.builds import Build, build_of

CART = {"app": "cart"}


def pod(
    *,
    image: str = "shop/cart:1.4",
    image_id: str = "docker-pullable://shop/cart@sha256:ab12",
    phase: str = "Running",
    containers: tuple[dict[str, Any], ...] = (),
    **metadata: Any,
) -> dict[str, Any]:
    named = containers or ({"name": "istio-proxy", "image": "istio/proxyv2:1.30"}, {"name": "cart", "image": image})
    return {
        "metadata": {"name": "cart-1", "labels": CART, **metadata},
        "spec": {"containers": list(named)},
        "status": {
            "phase": phase,
            "containerStatuses": [
                {"name": "istio-proxy", "imageID": "docker.io/istio/proxyv2@sha256:ffff"},
                {"name": "cart", "image": image, "imageID": image_id},
            ],
        },
    }


def test_the_image_is_the_services_own_with_the_digest_that_runs() -> None:
    found = build_of([pod()], CART)

    assert found == Build(1, "shop/cart:1.4@sha256:ab12", None)


@pytest.mark.parametrize(
    ("image", "image_id", "said"),
    [
        ("shop/cart@sha256:cd", "docker.io/shop/cart@sha256:cd", "shop/cart@sha256:cd"),
        ("shop/cart:1.4", "sha256:0123", "shop/cart:1.4"),  # a node's own name for it, which no registry knows
        ("shop/cart:1.4", "", "shop/cart:1.4"),
    ],
)
def test_an_image_without_a_digest_of_a_registry_is_named_as_written(image: str, image_id: str, said: str) -> None:
    assert build_of([pod(image=image, image_id=image_id)], CART).image == said


def test_of_several_containers_the_one_counts_that_kubectl_would_take() -> None:
    containers = ({"name": "log", "image": "log:1"}, {"name": "cart", "image": "shop/cart:1.4"})

    usual = build_of(
        [pod(containers=containers, annotations={"kubectl.kubernetes.io/default-container": "cart"})], CART
    )
    first = build_of([pod(containers=containers)], CART)

    assert (usual.image, first.image) == ("shop/cart:1.4@sha256:ab12", "log:1")


def test_a_revision_is_the_first_thing_that_a_pod_says_of_it() -> None:
    labels = {"app.kubernetes.io/version": "1.4", "pod-template-hash": "7d9c"}
    annotations = {"org.opencontainers.image.revision": "e83c5163", "luff.dev/content": "0a1b"}

    said = []
    for texts in (labels, annotations):
        for name in list(texts):
            said.append(build_of([pod(labels={**CART, **labels}, annotations=annotations)], CART).revision)
            if name != "pod-template-hash":
                del texts[name]

    assert said == ["1.4", "e83c5163", "e83c5163", "0a1b"]
    assert build_of([pod(labels={**CART, **labels})], CART).revision == "7d9c"


def test_pods_that_differ_are_all_named_and_many_are_counted() -> None:
    pods = [pod(labels={**CART, "pod-template-hash": f"h{number}"}) for number in (2, 1, 1)]
    many = [pod(image=f"cart:{number}", image_id="") for number in range(9)]

    assert build_of(pods, CART).revision == "h1, h2"
    assert build_of(many, CART).image == "cart:0, cart:1, cart:2, cart:3 and 5 more"


def test_only_pods_that_run_and_have_the_labels_count() -> None:
    others = [
        pod(phase="Pending"),
        pod(deletionTimestamp="2027-01-31T00:00:00Z"),
        pod(labels={"app": "stock"}),
        pod(labels=None),
    ]

    assert build_of(others, CART) == Build(0)


@pytest.mark.parametrize("bare", [{"spec": None}, {"spec": {}}, {"status": {"phase": "Running"}}])
def test_a_pod_that_says_nothing_is_no_error(bare: dict[str, Any]) -> None:
    found = build_of([{**pod(), **bare}], CART)

    assert found.pods == 1
    assert found.revision is None

"""What istiod's webhook says of where a DestinationRule sends its load: of localities and of failing over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from luff.words import Object

__all__ = ["fails_over_blindly", "locality_problems", "zone_aware_problems"]

_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
_WEIGHTS = 100


def locality_problems(setting: Object) -> Iterator[str]:
    """Say why the webhook would refuse a ``localityLbSetting`` of the schema's shape."""
    shares, failover = setting.get("distribute") or [], setting.get("failover") or []
    priority = setting.get("failoverPriority") or []
    if shares and failover:
        yield "can not simultaneously specify 'distribute' and 'failover'"
        return
    if failover and (label := next((each for each in priority if each in _TOPOLOGY), None)):
        yield f"can not simultaneously set 'failover' and topology label {label!r} in 'failover_priority'"
        return
    for share in shares:
        weights = share.get("to") or {}
        if not all(1 <= weight <= _WEIGHTS for weight in weights.values()):
            yield f"locality weight must be in range [1, {_WEIGHTS}]"
            return
        if sum(weights.values()) != _WEIGHTS:
            yield f"total locality weight {sum(weights.values())} != {_WEIGHTS}"
            return
        yield from _localities(list(weights))
    yield from _localities([share.get("from", "") for share in shares])
    yield from _regions(failover, "locality lb failover")


def zone_aware_problems(setting: Object) -> Iterator[str]:
    """Say why the webhook would refuse a ``zoneAwareLbSetting`` of the schema's shape."""
    for label in setting.get("failoverPriority") or []:
        if label in _TOPOLOGY:
            yield f"'failover_priority' for zone aware lb must not use topology label {label!r}"
    yield from _regions(setting.get("failover") or [], "zone aware lb failover")


def fails_over_blindly(policy: Object) -> bool:
    """Return whether *policy* says where to fail over to, and has no outlier detection that would ever do it."""
    balancer = policy.get("loadBalancer") or {}
    settings = [balancer.get(key) or {} for key in ("localityLbSetting", "zoneAwareLbSetting")]
    return "outlierDetection" not in policy and any(
        each.get("failover") or each.get("failoverPriority") for each in settings
    )


def _localities(named: Sequence[str]) -> Iterator[str]:
    """Say the first thing that is wrong with the localities *named*, in their order."""
    before: list[tuple[str, ...]] = []
    for locality in named:
        if "*" in locality[:-1]:
            yield f"locality {locality} wildcard '*' number can not exceed 1 and must be in the end"
            return
        parts = tuple(locality.split("/", 2))
        if not all(parts):
            yield f"locality {locality} must not contain empty region/zone/subzone info"
            return
        # One that ends in * may come after what it covers, and not before it.
        if any(_covers(each, parts) or (parts[-1] != "*" and _covers(parts, each)) for each in before):
            yield f"locality {locality} overlap with previous specified ones"
            return
        before.append(parts)


def _covers(wide: tuple[str, ...], narrow: tuple[str, ...]) -> bool:
    kept = wide[:-1] if wide[-1] == "*" else wide
    return narrow[: len(kept)] == kept


def _regions(failover: Sequence[Object], called: str) -> Iterator[str]:
    for each in failover:
        pair = (each.get("from", ""), each.get("to", ""))
        if pair[0] == pair[1]:
            yield f"{called} settings must specify different regions"
        if any("/" in region for region in pair):
            yield f"{called} only specify region"
        if any("*" in region for region in pair):
            yield f"{called} region should not contain '*' wildcard"

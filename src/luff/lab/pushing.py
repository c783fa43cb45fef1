"""
From the lab's objects to the files of its Envoys, at every change.

1. One object of which no configuration can be made takes no other with it: it is
   left out, and said, and the rest is pushed. Among what would be lost are luff's
   own withdrawals.
2. A proxy keeps what it has until it is given something else, as with istiod.
3. What could not be written is tried again, change or no change, until it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from luff.errors import LabError
from luff.hosts import namespace_of
from luff.lab.envoy import ProxyPlan, resources, write_files
from luff.lab.objects import Store
from luff.mesh_state import MeshState, Service, age
from luff.model import Object

__all__ = ["Made", "Pusher", "configure"]

PUSH_AGAIN_EVERY_S = 0.5
"""How soon what could not be written is tried again."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """This is what each proxy should have, by its name and then by file, and the objects that had to be left out."""

    files: Mapping[str, Mapping[str, Object]]
    skipped: tuple[str, ...] = ()


def configure(plans: Sequence[ProxyPlan], state: MeshState) -> Made:
    """Return what *plans* should have of *state*, without the objects of which nothing can be made."""
    found = _tried(plans, state)
    if isinstance(found, dict):
        return Made(found)
    kept = replace(state, virtual_services=(), destination_rules=(), gateways=())
    skipped = []
    every = [("virtual_services", each) for each in state.virtual_services]
    every += [("destination_rules", each) for each in state.destination_rules]
    every += [("gateways", each) for each in state.gateways]
    # The oldest first: what stood before keeps standing.
    for key, thing in sorted(every, key=lambda item: age(item[1])):
        more = replace(kept, **{key: (*getattr(kept, key), thing)})
        found = _tried(plans, more)
        if isinstance(found, dict):
            kept = more
        else:
            what = f"{thing.get('kind')} {namespace_of(thing)}/{thing['metadata']['name']}"
            skipped.append(f"{what}: no configuration can be made of it: {type(found).__name__}: {found}")
    return Made({plan.name: resources(plan, kept) for plan in plans}, tuple(skipped))


def _tried(plans: Sequence[ProxyPlan], state: MeshState) -> dict[str, dict[str, Object]] | Exception:
    try:
        return {plan.name: resources(plan, state) for plan in plans}
    except Exception as error:  # whatever it is, it must not keep the other objects from the proxies
        return error


class Pusher:
    """This keeps the files of *plans* as the objects in *store* say, in a thread of its own."""

    def __init__(self, store: Store, plans: Sequence[ProxyPlan], services: tuple[Service, ...]) -> None:
        self._store = store
        self._plans = plans
        self._services = services
        self._written: dict[str, dict[str, str]] = {}
        self._changed = threading.Event()
        self._ended = threading.Event()
        self.skipped: tuple[str, ...] = ()
        """The objects that are left out for now, each with the reason."""

    def start(self) -> None:
        """Write what is there now, and from now on what changes."""
        self._store.subscribe(lambda *_: self._changed.set())
        for plan in self._plans:
            plan.folder.mkdir(parents=True, exist_ok=True)
        self.push()
        threading.Thread(target=self._push_forever, name="push", daemon=True).start()

    def stop(self) -> None:
        """Write no more."""
        self._ended.set()
        self._changed.set()

    def push(self) -> None:
        """Write what is there now; raises `LabError` when some of it could not be written, with the rest written."""
        store = self._store
        state = MeshState(
            services=self._services,
            virtual_services=tuple(store.objects("virtualservices")),
            destination_rules=tuple(store.objects("destinationrules")),
            gateways=tuple(store.objects("gateways")),
        )
        made = configure(self._plans, state)
        for text in made.skipped:
            if text not in self.skipped:
                _log.warning("left out of the proxies' configuration: %s", text)
        self.skipped = made.skipped
        failed = []
        for plan in self._plans:
            try:
                write_files(plan, made.files[plan.name], self._written.setdefault(plan.name, {}))
            except OSError as error:
                failed.append(f"{plan.name}: {error}")
        if failed:
            raise LabError(f"proxies could not be given their files: {'; '.join(failed)}")

    def _push_forever(self) -> None:
        again_s, said = None, ""
        while True:
            self._changed.wait(again_s)
            if self._ended.is_set():
                return
            self._changed.clear()
            try:
                self.push()
            except Exception as error:  # whatever it is, what luff withdrew must still reach the proxies
                if str(error) != said:
                    _log.exception("the proxies keep what they have for now")
                again_s, said = PUSH_AGAIN_EVERY_S, str(error)
            else:
                again_s, said = None, ""

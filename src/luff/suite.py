"""
From suites to the experiments that they stand for, and which of those are run when.

Pure: whoever runs them brings the store and the mesh. Laws:

1. What a suite stands for depends on the documents alone: the same files give the same experiments, in the same order.
2. No two experiments of an expansion have one name, and every name is a DNS label: history knows them by it.
3. The shards of a selection are disjoint, and together they are the selection.
4. Two experiments with one target are never up at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import TypeVar

from luff.default_claims import default_expectations
from luff.errors import InvalidFile, UsageError
from luff.exit_codes import standing
from luff.model import Experiment, Fault, Suite, SuiteEntry, Verdict
from luff.outcome import Outcome
from luff.units import write_duration, write_percent
from luff.yaml_nodes import Place, Problems, did_you_mean

__all__ = ["VARIANT_OF", "expand", "fault_label", "last_failed", "next_up", "parse_shard", "shard"]

VARIANT_OF = "luff.dev/variant-of"
"""The label by which ``-l`` and history find all that a matrix made of one experiment."""

NAME_MOST = 63
SUITES_DEEP = 20
"""How many suites may stand in one another."""
SHARDS_MOST = 10_000
_HASH_DIGITS = 6
_GLOB = re.compile(r"[*?\[]")

T = TypeVar("T")


def _top(suite: Suite, entry: int) -> Place:
    return Place(suite.file, 1, 1)


def expand(
    suites: Sequence[Suite],
    experiments: Sequence[Experiment],
    *,
    place: Callable[[Suite, int], Place] = _top,
) -> tuple[Experiment, ...]:
    """
    Return what *suites* stand for, each experiment once; without suites all *experiments*.

    *place* says where an entry of a suite, counted from 0, is written. Raises
    `InvalidFile` for references to nothing and for suites that hold themselves.
    """
    if not suites:
        return tuple(experiments)
    expansion = _Expansion({each.name: each for each in experiments}, {}, place)
    for suite in suites:
        if suite.metadata.name in expansion.suites:
            expansion.problems.add(
                place(suite, 0), f"there are two suites named {suite.metadata.name!r}", "give one another name"
            )
        expansion.suites.setdefault(suite.metadata.name, suite)
    wanted: dict[_Wanted, None] = {}
    for suite in expansion.suites.values():
        wanted.update(dict.fromkeys(expansion.of(suite, (suite.metadata.name,))))
    if expansion.problems:
        raise InvalidFile(list(expansion.problems))
    return _named(list(wanted), expansion.experiments)


_Wanted = tuple[str, Fault | None]
"""The name of an experiment, and the fault in place of its own."""


@dataclass(slots=True)
class _Expansion:
    experiments: dict[str, Experiment]
    suites: dict[str, Suite]
    place: Callable[[Suite, int], Place]
    problems: Problems = field(default_factory=Problems)
    done: dict[str, list[_Wanted]] = field(default_factory=dict)

    def of(self, suite: Suite, way: tuple[str, ...]) -> list[_Wanted]:
        """Return what *suite* stands for; *way* are the suites that led here, itself the last."""
        name = suite.metadata.name
        if name not in self.done:
            found: dict[_Wanted, None] = {}
            for index, entry in enumerate(suite.spec.experiments):
                for base, fault in self._referred(suite, index, entry, way):
                    faults = (fault,) if entry.matrix is None else entry.matrix.fault
                    found.update(dict.fromkeys((base, each) for each in faults))
            self.done[name] = list(found)
        return self.done[name]

    def _referred(self, suite: Suite, index: int, entry: SuiteEntry, way: tuple[str, ...]) -> list[_Wanted]:
        ref, place = entry.ref, self.place(suite, index)
        if _GLOB.search(ref):
            found: list[_Wanted] = [(name, None) for name in self.experiments if fnmatchcase(name, ref)]
            if not found:
                self.problems.add(place, f"no experiment has a name like {ref[:NAME_MOST]!r}", self._instead(ref))
            return found
        if ref in self.experiments:
            return [(ref, None)]
        if ref in way:
            circle = " → ".join((*way[way.index(ref) :], ref))
            self.problems.add(
                place, f"the suite {ref!r} refers to itself ({circle})", "name the experiments, or leave it out"
            )
            return []
        if ref in self.suites:
            if len(way) >= SUITES_DEEP:
                self.problems.add(place, f"suites stand in one another more than {SUITES_DEEP} deep")
                return []
            return self.of(self.suites[ref], (*way, ref))
        self.problems.add(
            place, f"there is no experiment and no suite named {ref[:NAME_MOST]!r} in these files", self._instead(ref)
        )
        return []

    def _instead(self, ref: str) -> str:
        if not self.experiments:
            return "give the files of the experiments as well"
        return did_you_mean(ref, [*self.experiments, *self.suites])


def _named(wanted: Sequence[_Wanted], experiments: Mapping[str, Experiment]) -> tuple[Experiment, ...]:
    made: dict[str, Experiment] = {}
    for base, fault in wanted:
        experiment = experiments[base]
        if fault is not None:
            label = fault_label(fault)
            name = _joined(base, label)
            if name in experiments or name in made:
                name = _joined(base, label, hashed=True)
            experiment = _variant(experiment, fault, name)
        made[experiment.name] = experiment
    return tuple(made.values())


def _joined(base: str, label: str, *, hashed: bool = False) -> str:
    """Return ``base-label``; what is too long for a DNS label, or not alone in its name, ends with a hash of it."""
    whole = f"{base}-{label}"
    if len(whole) <= NAME_MOST and not hashed:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_HASH_DIGITS]
    tail = f"{label}-{digest}"[-NAME_MOST // 2 :].lstrip("-")
    return f"{base[: NAME_MOST - len(tail) - 1].rstrip('-')}-{tail}"


def _variant(experiment: Experiment, fault: Fault, name: str) -> Experiment:
    """
    Return *experiment* with *fault* in place of its own.

    What its author said about the other fault does not carry over: neither the
    expected verdict nor the known failure. Expectations that were left out are
    the defaults for the new fault.
    """
    same = fault == experiment.spec.fault
    annotations = experiment.metadata.annotations if same else {}
    metadata = experiment.metadata.model_copy(
        update={
            "name": name,
            "labels": {**experiment.metadata.labels, VARIANT_OF: experiment.name},
            "annotations": annotations,
        }
    )
    known = experiment.spec.known_failure if same else None
    spec = experiment.spec.model_copy(update={"fault": fault, "known_failure": known})
    if experiment.defaults:
        spec = spec.model_copy(update={"expect": default_expectations(spec)})
    return experiment.model_copy(update={"metadata": metadata, "spec": spec})


def fault_label(fault: Fault) -> str:
    """Return *fault* as a part of a DNS label, such as ``delay-1s`` or ``abort-503-10pct``."""
    parts: list[str] = []
    if fault.delay is not None:
        parts += ["delay", write_duration(fault.delay.duration_s), *_dose(fault.delay.percent)]
    if fault.abort is not None:
        parts += ["abort", str(fault.abort.http or fault.abort.grpc), *_dose(fault.abort.percent)]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _dose(percent: float) -> tuple[str, ...]:
    return () if percent == 100 else (f"{write_percent(percent).rstrip('%')}pct",)


def parse_shard(text: str) -> tuple[int, int]:
    """Return I and N of ``I/N``, with 1 ≤ I ≤ N."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None:
        raise UsageError(f"--shard {text!r} is not I/N", next_step="write it such as --shard 1/3")
    index, count = int(match[1]), int(match[2])
    if not 1 <= count <= SHARDS_MOST or not 1 <= index <= count:
        raise UsageError(
            f"--shard {text!r} names no shard: I is 1 to N, and N at most {SHARDS_MOST}",
            next_step=f"the first is --shard 1/{min(max(count, 1), SHARDS_MOST)}",
        )
    return index, count


def shard(items: Sequence[T], index: int, count: int) -> tuple[T, ...]:
    """Return shard *index* (from 1) of *count*: every *count*-th of *items*, so that shards differ by one at most."""
    return tuple(items[index - 1 :: count])


def last_failed(
    experiments: Sequence[Experiment], newest: Mapping[str, Outcome], *, today: date
) -> tuple[Experiment, ...]:
    """Return the experiments whose *newest* outcome, by name, does not count as passed; those never run are not among them."""
    return tuple(
        each
        for each in experiments
        if each.name in newest and standing(newest[each.name], today=today).counts_as is not Verdict.PASSED
    )


def next_up(waiting: Sequence[Hashable | None], busy: Collection[Hashable | None]) -> int | None:
    """
    Return the index of the first of *waiting* targets that may start beside those that are *busy*, or ``None``.

    ``None`` as a target is one that could not be told: it waits for nobody,
    since such a run injects nothing.
    """
    return next((index for index, target in enumerate(waiting) if target is None or target not in busy), None)

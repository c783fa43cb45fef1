"""
The list of scenarios in which a fault could be left behind, and how each of them is tried.

The numbers and names are those that docs/scenarios.md publishes; a test holds
that page to this table, and ``python -m tests.scenes.prove`` plays it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["SCENARIOS", "How", "Scenario", "page"]

How: TypeAlias = Literal["simulation", "real API", "processes", "cluster only"]
HOW: dict[How, str] = {
    "simulation": "the product's own code on the simulated API server, in virtual time;"
    " what the schedules of `tests/crash` play is in there",
    "real API": "the product's own code and the real Kubernetes client against the lab's API server,"
    " which misbehaves on command, or through a TCP proxy that does",
    "processes": "the command line against a running lab, with real proxies, guards and reapers",
    "cluster only": "it takes a cluster or a container runtime. Where a test stands beside it,"
    " that plays what it means for luff, and not the thing itself",
}
"""What each way of trying is, as docs/scenarios.md has it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    This is one scenario.

    *tests* are pytest's names below ``tests/``; all of them are played. *says*
    is what is left to say: why it cannot be tried here, or what stays open.
    """

    number: int
    what: str
    how: How
    tests: tuple[str, ...] = ()
    says: str = ""


_CRASH = "crash/test_protocol.py::test_a_slice_of_all_schedules_ends_clean"
_MESH = "mesh/test_scenarios.py::"
_STORY = "story/test_scenarios.py::"
_DAYS = "story/test_bad_days.py::"
_RUN = "test_run.py::"
_KILLS = "story/test_kills.py::"

SCENARIOS: tuple[Scenario, ...] = (
    # process
    Scenario(
        1,
        "an exception while planning",
        "processes",
        ("cli/test_running.py::test_a_mistake_of_ours_in_one_run_is_its_outcome_and_no_matter_to_the_others",),
    ),
    Scenario(
        2,
        "an exception in the driver while the fault is live",
        "simulation",
        (_RUN + "test_a_mistake_of_ours_while_the_fault_is_live_is_an_outcome",),
    ),
    Scenario(
        3,
        "an exception while the restore is verified",
        "simulation",
        (
            _RUN + "test_an_odd_error_of_the_client_during_the_restore_is_never_taken_for_clean",
            _RUN + "test_whatever_keeps_us_from_looking_at_proxies_what_was_learnt_is_not_lost",
        ),
    ),
    Scenario(4, "SIGTERM", "processes", ("story/test_run.py::test_a_signal_restores_before_it_leaves",)),
    Scenario(
        5,
        "SIGTERM twice",
        "processes",
        ("cli/test_running.py::test_a_signal_reaches_the_runs_and_later_ones_end_nothing",),
    ),
    Scenario(
        6,
        "SIGINT in the middle of the restore",
        "processes",
        ("story/test_run.py::test_a_second_ctrl_c_does_not_skip_the_restore",),
    ),
    Scenario(
        7,
        "kill -9 at every point",
        "processes",
        (_KILLS + "test_nothing_is_left_after_a_kill_at_any_moment", _CRASH),
        "the simulation kills at each await, the processes at random moments",
    ),
    Scenario(
        8,
        "the container runs out of memory",
        "cluster only",
        says="the kernel kills every process of the container at once, luff and its guard: as 14, which is played by "
        "killing both",
    ),
    Scenario(
        9,
        "SIGSTOP for longer than the Lease, then SIGCONT",
        "processes",
        (_STORY + "test_9_a_run_that_slept_longer_than_its_lease_finds_that_it_lost_it",),
    ),
    Scenario(
        10,
        "the event loop is blocked",
        "real API",
        (_MESH + "test_10_a_guard_takes_out_what_a_blocked_event_loop_leaves_in_for_too_long",),
        "for as long as the twins' own time; while they are in time nobody can tell a blocked run from a busy one",
    ),
    Scenario(
        11,
        "no file descriptor is left at the restore",
        "processes",
        (_STORY + "test_11_a_process_without_files_left_restores",),
    ),
    Scenario(12, "the disk is full", "processes", (_STORY + "test_12_a_full_disk_does_not_hold_the_routes",)),
    Scenario(
        13,
        "the pod is deleted by force, its token is dead",
        "cluster only",
        says="a dead token is 28 and 29; that kubelet ends the processes later than the API server forgets the pod needs "
        "a cluster. A reaper has an identity of its own",
    ),
    Scenario(
        14,
        "the node is lost",
        "cluster only",
        (_KILLS + "test_a_reaper_cleans_up_after_a_kill_that_takes_the_guard_along",),
        "the loss of a node takes a cluster; what it means for luff, that run and guard are gone at once, is played",
    ),
    Scenario(
        15,
        "an upgrade in mid-run: twins of two formats of names",
        "real API",
        (
            _MESH + "test_15_a_run_that_ends_leaves_the_twins_of_a_newer_luff_alone",
            "story/test_restore.py::test_a_twin_of_a_newer_luff_is_not_removed_on_sight_but_by_its_id",
        ),
    ),
    Scenario(
        16, "the guard dies first", "processes", ("story/test_run.py::test_the_run_ends_when_its_guard_is_killed",)
    ),
    Scenario(
        17,
        "the reaper dies first",
        "simulation",
        (
            _RUN + "test_a_container_without_a_reaper_is_refused",
            _RUN + "test_a_reaper_that_falls_silent_ends_a_run_that_relies_on_it",
        ),
    ),
    # API
    Scenario(
        18,
        "the API is away at the inject, 60 s",
        "processes",
        (_STORY + "test_18_an_api_that_is_away_at_the_inject_ends_the_run_and_leaves_nothing",),
    ),
    Scenario(
        19,
        "the API is away at the restore, 60 s; or the network is bad",
        "processes",
        (
            _STORY + "test_19_an_api_that_is_away_at_the_restore_is_waited_for",
            _MESH + "test_19_a_bad_network_at_the_restore_is_waited_out",
        ),
    ),
    Scenario(
        20,
        "the answer to the inject is lost",
        "real API",
        (_MESH + "test_20_a_bad_network_at_the_inject_leaves_nothing", _CRASH),
    ),
    Scenario(
        21,
        "the answer to the removal is lost",
        "real API",
        (_MESH + "test_19_a_bad_network_at_the_restore_is_waited_out", _CRASH),
    ),
    Scenario(
        22,
        "the inject is applied long after the restore",
        "simulation",
        ("crash/test_protocol.py::test_a_patch_that_arrives_after_the_restore_meets_the_fence",),
    ),
    Scenario(
        23,
        "storms of 429 with Retry-After, of 503, of connections that are closed",
        "processes",
        (
            _STORY + "test_23_a_storm_at_the_inject_ends_the_run_and_leaves_nothing",
            _STORY + "test_23_a_storm_at_the_restore_is_waited_out",
        ),
    ),
    Scenario(
        24,
        "a storm of 409: somebody writes every 50 ms",
        "real API",
        (
            _MESH + "test_24_an_inject_that_somebody_overtakes_each_time_is_given_up_and_leaves_nothing",
            _MESH + "test_24_a_storm_of_429_and_of_somebody_who_writes_all_the_time_is_waited_out",
        ),
    ),
    Scenario(
        25,
        "422 since places move each time",
        "simulation",
        ("test_routes.py::test_each_step_back_is_refused_where_another_route_stands_by_now", _CRASH),
    ),
    Scenario(
        26,
        "stale reads from a replica that lags or has stopped",
        "real API",
        (
            _MESH + "test_26_a_replica_that_has_stopped_is_not_believed",
            "story/test_restore.py::test_a_reaper_gets_through_an_api_that_misbehaves",
        ),
    ),
    Scenario(
        27,
        "an answer that never comes",
        "processes",
        (
            _DAYS + "test_27_an_api_that_hangs_at_the_restore_is_given_up_and_asked_again",
            _MESH + "test_27_answers_that_never_come_are_given_up_and_asked_for_again",
        ),
        "luff watches nothing: it asks, and every answer has a time limit",
    ),
    Scenario(
        28,
        "the token expires or is rotated in mid-run",
        "processes",
        (
            _STORY + "test_28_a_token_that_is_rotated_in_mid_run_is_read_anew",
            "mesh/test_credentials.py::test_a_credential_plugin_is_asked_anew_when_its_token_has_expired_and_never_reads_what_we_are_told",
        ),
    ),
    Scenario(
        29,
        "the role is taken away in mid-run",
        "processes",
        (
            _DAYS + "test_29_a_role_that_is_taken_away_in_mid_run_is_7_and_the_guard_goes_on",
            _MESH + "test_29_a_role_that_is_taken_away_in_mid_run_is_said_with_the_command",
        ),
    ),
    Scenario(
        30,
        "the API server's certificate authority is changed",
        "real API",
        (_MESH + "test_30_a_guard_restores_though_the_certificate_authority_was_changed",),
        "a run does not read it anew: it ends with 7 after two minutes, and its guard goes on",
    ),
    Scenario(
        31,
        "etcd is restored from an older backup, with or without the fault in it",
        "real API",
        (
            _MESH + "test_31_a_backup_from_before_the_inject_takes_the_twins_and_time_with_it",
            _MESH + "test_31_a_backup_from_during_the_run_brings_twins_back_and_luff_restore_takes_them",
        ),
    ),
    # admission
    Scenario(
        32,
        "istiod is down and its webhook fails closed",
        "real API",
        (
            _MESH + "test_32_a_webhook_that_is_down_at_the_inject_leaves_nothing",
            _MESH + "test_32_a_webhook_that_is_down_at_the_restore_is_waited_for",
        ),
    ),
    Scenario(
        33,
        "a webhook adds fields to twins",
        "real API",
        (_MESH + "test_33_fields_that_a_webhook_adds_to_a_twin_keep_nobody_from_removing_it",),
    ),
    Scenario(
        34,
        "a webhook renames twins, or takes their names away",
        "processes",
        (
            _DAYS + "test_34_a_webhook_that_takes_names_away_is_refused_before_anything_is_sent",
            _MESH + "test_34_a_twin_that_a_webhook_renames_is_still_known_and_removed_by_a_reaper",
            _MESH + "test_34_names_that_are_lost_at_the_inject_are_never_taken_for_clean",
        ),
        "where the dry run does not show it, the run ends with 7 and names the routes to take out by hand",
    ),
    Scenario(
        35,
        "a policy forbids the removal",
        "real API",
        (_MESH + "test_35_a_policy_that_forbids_the_removal_leaves_a_route_that_does_nothing_until_it_is_lifted",),
    ),
    Scenario(
        36,
        "the removal would leave no route at all",
        "real API",
        (_MESH + "test_36_a_removal_that_would_leave_no_route_at_all_disarms_the_twin_until_it_may",),
    ),
    Scenario(
        37,
        "the dry run allows what the write does not",
        "real API",
        (_MESH + "test_37_what_the_dry_run_allowed_and_the_write_does_not_leaves_nothing",),
    ),
    # others' writes
    Scenario(
        38,
        "somebody adds, deletes, reorders routes",
        "processes",
        ("story/test_run.py::test_edits_of_others_survive_and_are_reported", _CRASH),
    ),
    Scenario(
        39,
        "somebody takes the scope out of a twin",
        "processes",
        ("story/test_restore.py::test_a_twin_whose_scope_is_gone_is_removed_on_sight", _CRASH),
        "until the next round of a reaper, 5 s, or the end of the run it hits everybody",
    ),
    Scenario(
        40,
        "somebody renames a twin",
        "processes",
        ("story/test_restore.py::test_a_twin_of_ours_whose_name_makes_no_sense_is_removed_on_sight", _CRASH),
        "one that has lost the prefix of its name as well as the response header is not known as ours any more",
    ),
    Scenario(41, "an editor that was opened before the inject saves during the run", "simulation", (_CRASH,)),
    Scenario(
        42,
        "an editor that was opened during the run saves afterwards",
        "simulation",
        (_CRASH,),
        "the twin comes back, and stays until a reaper's next round or `luff restore`",
    ),
    Scenario(
        43,
        "kubectl replace, kubectl apply",
        "real API",
        ("mesh/test_ownership.py::test_an_applier_gets_its_routes_back_without_a_conflict", _CRASH),
    ),
    Scenario(
        44,
        "Argo CD's self-heal",
        "processes",
        (_STORY + "test_44_a_controller_that_reverts_is_warned_of_and_ends_the_run",),
        "what it writes is played; Argo CD itself is not",
    ),
    Scenario(
        45,
        "Flux at its interval",
        "processes",
        (_STORY + "test_44_a_controller_that_reverts_is_warned_of_and_ends_the_run",),
        "what it writes is played; Flux itself is not",
    ),
    Scenario(
        46,
        "Helm 4 upgrades during and after the run",
        "real API",
        (
            "mesh/test_ownership.py::test_an_applier_gets_its_routes_back_without_a_conflict",
            "mesh/test_ownership.py::test_without_giving_back_the_next_apply_would_be_a_conflict",
        ),
        "as server-side apply, which Helm 4 does",
    ),
    Scenario(
        47,
        "Flagger in each phase, and its revertOnDeletion",
        "processes",
        (_DAYS + "test_47_what_flagger_does_to_an_object_leaves_nothing_for_long",),
        "what it writes is played; Flagger itself is not",
    ),
    Scenario(
        48,
        "Argo Rollouts: weights, managed routes on top, duplicated names",
        "real API",
        (_MESH + "test_48_what_rollouts_does_to_an_object_survives_and_twins_go", _CRASH),
        "what it writes is played; Rollouts itself is not",
    ),
    Scenario(
        49,
        "the VirtualService is deleted, and made anew from git or from a dump",
        "simulation",
        (_CRASH, _RUN + "test_an_object_that_was_deleted_is_not_blamed_on_gitops"),
    ),
    Scenario(
        50,
        "the namespace is terminating",
        "real API",
        (_MESH + "test_50_a_namespace_that_goes_in_mid_run_takes_the_twins_along_and_that_is_proven",),
    ),
    # many
    Scenario(
        51,
        "two runs on one VirtualService, restored in either order",
        "processes",
        (
            _STORY + "test_51_of_two_that_start_at_the_same_moment_exactly_one_runs",
            "test_routes.py::test_two_runs_withdrawn_in_either_order_leave_the_object_as_it_was",
        ),
    ),
    Scenario(
        52,
        "two VirtualServices for one host",
        "simulation",
        (_RUN + "test_an_older_object_of_another_namespace_for_the_same_host_is_a_refusal",),
    ),
    Scenario(
        53,
        "two holders of one Lease",
        "real API",
        (
            "mesh/test_lock.py::test_who_takes_the_lease_between_a_look_and_a_write_is_seen_at_once",
            "mesh/test_conformance.py::test_a_lease_keeps_another_run_out_and_carries_a_stop",
            _CRASH,
        ),
    ),
    # time, data
    Scenario(
        54,
        "clocks that are an hour off",
        "processes",
        (
            _DAYS + "test_54_a_run_whose_clock_is_an_hour_off_is_like_any_other",
            _DAYS + "test_54_a_reaper_whose_clock_is_an_hour_off_takes_what_is_left_and_nothing_else",
        ),
        "the API server's own clock is the one that is believed: where that jumps forward, twins expire early",
    ),
    Scenario(
        55,
        "the database is away, lost, or restored from an old backup",
        "processes",
        (
            _STORY + "test_55_a_store_that_is_locked_in_mid_run_does_not_hold_the_routes",
            _STORY + "test_55_a_store_that_is_lost_in_mid_run_does_not_hold_the_routes",
            "crash/test_protocol.py::test_extra",
            "web/test_restart.py::test_a_journal_from_an_old_backup_touches_nothing_that_is_clean",
            "web/test_restart.py::test_a_journal_row_whose_object_is_gone_is_closed",
        ),
    ),
    Scenario(
        56,
        "a proxy that is cut off from istiod keeps the fault",
        "simulation",
        (
            "test_settle.py::test_it_is_stale_when_some_are_left_for_too_long",
            _RUN + "test_a_stop_that_meets_proxies_that_keep_the_fault_pulls_the_lever",
        ),
        "nothing can take the fault out of such a proxy; it is said with 7 where it can be seen, and *unobserved* where "
        "it cannot",
    ),
    Scenario(
        57,
        "the scope's value leaks to real users' requests",
        "processes",
        (_DAYS + "test_57_who_sends_the_secret_is_hit_for_as_long_as_the_run_lasts_and_no_longer",),
        "whoever sends the value is hit while the run lasts",
    ),
    Scenario(
        58,
        "a storm of restores: 100 runs on 50 VirtualServices",
        "real API",
        (
            _MESH + "test_58_the_leftovers_of_100_runs_on_50_objects_are_taken_out_by_one_look_of_a_reaper",
            _MESH + "test_58_50_runs_of_two_doses_each_in_one_process_are_restored_together",
        ),
    ),
    Scenario(
        59,
        "a name that begins like ours and is malformed or somebody else's",
        "processes",
        (
            "story/test_restore.py::test_what_only_looks_like_ours_is_reported_and_never_removed",
            "story/test_restore.py::test_a_broken_name_does_not_take_others_with_it",
        ),
    ),
    Scenario(
        60,
        "the CronJob that is the last resort is suspended, or missed its starts",
        "cluster only",
        ("story/test_restore.py::test_a_leftover_is_removed",),
        "that a CronJob is not started is Kubernetes' affair: then nothing is cleaned up until somebody runs "
        "`luff restore`. What it would run is played",
    ),
)


def page() -> str:
    """Return the table of docs/scenarios.md."""
    lines = ["| | scenario | tried | by | and |", "|---|---|---|---|---|"]
    for each in SCENARIOS:
        files = dict.fromkeys(test.partition("::")[0] for test in each.tests)
        by = "<br>".join(f"[{_stem(file)}](../tests/{file})" for file in files) or "–"
        lines.append(f"| {each.number} | {each.what} | {each.how} | {by} | {each.says} |")
    return "\n".join(lines) + "\n"


def _stem(file: str) -> str:
    return file.rpartition("/")[2].removesuffix(".py")


if __name__ == "__main__":
    sys.stdout.write(page())

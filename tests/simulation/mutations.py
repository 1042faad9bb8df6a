"""Defects planted in the product, one at a time, in memory: proof that the simulation bites.

``MUTATIONS`` names what each takes away. ``CAUGHT`` says which seed notices it, found by search
(``make mutants``) and played again by ``test_mutations.py``; ``NOT_CAUGHT`` says of the others
why this net cannot hold them, and what does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from unittest import mock

from tests.simulation import clock_defects, defects, start_defects
from tests.simulation.defects import Patch


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken away by ``patches``."""

    name: str
    takes_away: str
    patches: Callable[[], list[Patch]]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Let the product lack the protection while the context lasts."""
        with ExitStack() as stack:
            for owner, name, replacement in self.patches():
                stack.enter_context(mock.patch.object(owner, name, replacement))
            yield


_unfenced = partial(partial, defects.unfenced)
_digest_without = partial(partial, defects.digest_without)

MUTATIONS: dict[str, Mutation] = {
    name: Mutation(name, takes_away, patches)
    for name, takes_away, patches in (
        ("succeed-unfenced", "the fencing check of a success", _unfenced("succeed")),
        ("fail-unfenced", "the fencing check of a failure", _unfenced("fail")),
        ("release-unfenced", "the fencing check of giving back", _unfenced("release")),
        ("heartbeat-unfenced", "the fencing check of a heartbeat", _unfenced("heartbeat")),
        ("token-not-raised", "a higher token at each claim", defects.same_token),
        ("lease-renewal", "the renewal of leases", defects.leases_not_renewed),
        ("lease-expiry", "the taking back of lost leases", defects.leases_never_lost),
        (
            "lease-by-start",
            "renewals, in favour of starts",
            clock_defects.leases_by_their_start,
        ),
        ("conflict", "the comparison of versions before a status", defects.conflicts_ignored),
        ("generation-check", "the generation in Ready", defects.ready_of_any_generation),
        ("generation-raise", "a new generation for a new spec", defects.generation_stays),
        ("observed-too-early", "the wait with observedGeneration", defects.observed_too_early),
        ("upstream-freshness", "the wait for a Ready upstream", defects.stale_upstreams_used),
        ("digest-prompts", "prompts in a digest", _digest_without("capture", "prompts")),
        ("digest-content", "inputs in a digest", _digest_without("decomposition", "capture")),
        ("digest-geometry", "a side in a geometry's digest", _digest_without("geometry", "fine")),
        ("child-removal", "the removal of dropped children", defects.children_stay),
        ("cascade", "the deletion of what is owned", defects.orphans_stay),
        ("prune", "the source of what is pruned", defects.prune_takes_all),
        ("fsync", "every fsync of artifacts", defects.no_fsync),
        ("fsync-folders", "the fsync of folders", defects.no_fsync_of_folders),
        ("manifest-last", "the rename of a whole folder", defects.manifest_first),
        ("adoption-verified", "the hashes before adoption", defects.adopted_unseen),
        ("resync-blind", "the reading again after a write", defects.converged_for_ever),
        ("presence-check", "the look at files at each reconcile", defects.presence_unchecked),
        ("hash-again", "the hashing of artifacts in turns", defects.never_hashed_again),
        ("inputs-hashed", "the worker's hashing of inputs", defects.inputs_unverified),
        ("quarantine-folder", "the moving aside of damage", defects.index_forgotten_only),
        ("quarantine-index", "the forgetting of damage", defects.folder_set_aside_only),
        ("quarantine-ready", "Ready going with the artifact", defects.ready_stays),
        ("collect-unasked", "the second look before collecting", defects.collected_unasked),
        ("dedupe", "one active job per digest", defects.no_dedupe),
        ("cancel-unwanted", "the cancelling of unwanted jobs", defects.unwanted_run_on),
        ("start-rate", "the limit of job starts", defects.rate_ignored),
        (
            "start-rate-set",
            "starts moved with the clock",
            clock_defects.starts_by_their_date,
        ),
        ("lease-set", "leases told by their renewals", clock_defects.leases_by_their_date),
        ("resync-stopped", "resyncs after a stop", clock_defects.pauses_after_what_lasted),
        ("publish-in-two", "one transaction of a success", defects.success_before_its_artifact),
        ("plan-in-two", "one transaction of a plan", defects.plan_in_two_commits),
        ("log-read-skips", "every line of the change log", defects.log_read_skips),
        ("gone", "the listing after Gone", defects.gone_ignored),
        ("backoff-forgotten", "the end of a backoff", defects.backoff_kept),
        ("resync", "resyncs after the first", defects.resync_looks_at_nothing),
        ("payload-of-now", "the payload of now", start_defects.payloads_as_queued),
        ("upstreams-of-now", "the look at upstreams", start_defects.upstreams_as_they_say),
        ("code-checked", "the worker's look at its code", start_defects.any_code_computes),
        ("digest-of-now", "the digest of now before a start", start_defects.started_as_queued),
        ("synchronous-full", "SQLite's own fsync", list),
    )
}

CAUGHT: dict[str, int] = {
    "succeed-unfenced": 1,
    "fail-unfenced": 1,
    "release-unfenced": 1,
    "token-not-raised": 0,
    "heartbeat-unfenced": 1,
    "lease-by-start": 4,
    "lease-expiry": 4,
    "generation-check": 21,
    "generation-raise": 0,
    "observed-too-early": 21,
    "digest-prompts": 2,
    "digest-content": 27,
    "digest-geometry": 622,
    "child-removal": 163,
    "cascade": 0,
    "fsync": 17,
    "prune": 36,
    "fsync-folders": 17,
    "manifest-last": 2,
    "resync-blind": 32,
    "presence-check": 45,
    "hash-again": 16,
    "quarantine-folder": 1,
    "quarantine-ready": 4,
    "cancel-unwanted": 1,
    "collect-unasked": 70,
    "start-rate": 9,
    "start-rate-set": 9,
    "lease-set": 1,
    "resync-stopped": 6,
    "publish-in-two": 284,
    "log-read-skips": 4,
    "payload-of-now": 37,
    "digest-of-now": 3,
    "resync": 135,
}
"""The seed that notices each defect."""

NOT_CAUGHT: dict[str, str] = {
    "synchronous-full": "the simulated disk trusts SQLite; a unit test holds the setting",
    "lease-renewal": "controllers look seldom here, and of the time between two looks one beat "
    "counts against a worker; test_clock_that_is_set holds it",
    "conflict": "an old status is put right by the reconcile that the newer version causes before "
    "the controller is idle; test_state_objects holds the refusal",
    "upstream-freshness": "work on a stale upstream is cancelled or done again before the "
    "controller is idle; test_reconcilers holds the waiting",
    "adoption-verified": "what is corrupt and adopted is found by the next turn of hashing; "
    "test_controller_faults holds the refusal",
    "inputs-hashed": "presence and turns of hashing find the damage first; "
    "test_simulation_findings holds a forged input",
    "quarantine-index": "the next look at the files forgets the artifact as well; "
    "test_rebuild and test_drift hold the index",
    "dedupe": "a plan looks for an active job first, so only a second controller between look and "
    "commit could add one; test_machine_jobs holds the index",
    "plan-in-two": "a plan cut in two is made whole by the next reconcile, and no invariant "
    "forbids the moment between; test_controller_faults holds that half of one is never written",
    "gone": "a resync looks at everything soon after; test_simulation_findings holds the listing",
    "upstreams-of-now": "an upstream is looked at in the step that learns of its new place, before "
    "jobs start; test_way_to_inputs holds the waiting",
    "code-checked": "a worker of other code meets a waiting job in few worlds: seed 15 noticed "
    "it until the worlds had another stage, seeds 16 to 600 do not; test_code_upgrade and "
    "test_worker_serving hold the refusal",
    "backoff-forgotten": "a failure counted on only delays retries, which no invariant forbids; "
    "test_machine_work_queue holds it",
}
"""Why the simulation does not notice the others; 80 seeds or more were tried for each."""

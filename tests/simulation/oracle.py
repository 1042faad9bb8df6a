"""What must hold after every step, whoever did what."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from loopscope.reconcilers.references import object_references
from loopscope.specs.canonical import canonical_json
from loopscope.specs.keys import Key
from loopscope.state import invariants
from loopscope.state.artifacts.store import Corrupt
from loopscope.state.db import jobs, shares
from loopscope.state.invariants import Seen, Violation
from loopscope.state.records import ArtifactRecord, ObjectRecord
from tests import promises
from tests.history import History
from tests.promises import ROUNDING_SECONDS, STARTS_WINDOW_SECONDS
from tests.simulation.fleet import Installed
from tests.simulation.model import Model, with_children
from tests.simulation.world import HEARTBEAT_SECONDS, Life, World


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Oracle:
    """Looks at the world after every step and raises Broken."""

    world: World
    history: History = field(default_factory=History)
    checked: int = 0
    _seen: Seen | None = None
    _stamp: tuple[object, ...] = ()
    _hashed: dict[str, str] = field(default_factory=dict)
    _contents: dict[tuple[Key, str], set[str | None]] = field(default_factory=dict)
    _geometries: dict[tuple[Key, str], set[str]] = field(default_factory=dict)
    """What the geometry that a mapping of this spec needs may hold."""
    _known_worlds: set[tuple[str, str, int]] = field(default_factory=set)
    _started: dict[int, float] = field(default_factory=dict)
    """When each job start was claimed, on the clock that nobody can set, by fencing token."""
    _losses: dict[int, tuple[int, int]] = field(default_factory=dict)

    def look(self) -> Seen:
        """Check all that must hold at any moment."""
        world = self.world
        stamp = (world.trouble.writes, *sorted(world.harmed))
        if self._seen is not None and stamp == self._stamp:
            return self._seen  # nobody wrote anything since
        with world.state.database.read() as connection:
            seen = invariants.see(connection)
        self._seen, self._stamp = seen, stamp
        self._learn(seen)
        lost = set(world.harmed)
        self._heal(seen)
        new = {d for d, a in seen.artifacts.items() if self._hashed.get(d) != a.content_digest}
        found = [item for check in invariants.AT_REST for item in check(seen)]
        found += promises.starts_keep_the_rate(seen, world.settings.job_starts_per_minute)
        found += self._starts_keep_the_rate_as_time_really_passed(seen)
        found += [
            item
            for item in promises.ready_objects_have_their_artifacts(seen, world.state.artifacts)
            if not self._is_harmed(seen, item)
        ]
        found += promises.artifacts_were_made_by_their_code(seen, world.state.artifacts, new)
        found += self.history.look(seen, world.state.artifacts, lost)
        found += [
            item for digest in sorted(new - world.harmed) for item in self._is_whole(seen, digest)
        ]
        found += self._contents_were_once_right(seen)
        found += self._geometries_were_once_right(seen)
        found += world.broken
        found += self._living_workers_keep_their_jobs(seen)
        self._hashed = {digest: a.content_digest for digest, a in seen.artifacts.items()}
        self._judge(found)
        return seen

    def after_a_clean_step(self, seen: Seen, life: Life, *, resynced: bool) -> None:
        """Check what a controller owes when it was left alone and says that it is idle."""
        controller, world = life.controller, self.world
        failing = controller.queue._failures
        found = [
            Violation("backoff", str(key), "is remembered as failing after a success")
            for key in failing
            if key not in controller.queue._due_at
        ]
        if controller.idle and not failing and (resynced or not world.dropped):
            found += self._everything_was_looked_at(seen)
            found += self._only_wanted_jobs(seen)
            found += self._nothing_rests_on_the_past(seen, life, resynced=resynced)
        self._judge(found)

    def after_a_power_cut(self) -> None:
        """Check that no artifact is lost that the database says was published."""
        with self.world.state.database.read() as connection:
            seen = invariants.see(connection)
        whole = sorted(seen.artifacts.keys() - self.world.harmed)
        self._judge([item for digest in whole for item in self._is_whole(seen, digest)])

    def at_the_end(self, seen: Seen) -> None:
        """Check I1, and against the model: outcomes, and every byte (I13)."""
        found = promises.every_object_is_settled(seen)
        digests = set(seen.artifacts)
        found += promises.ready_objects_have_their_artifacts(
            seen, self.world.state.artifacts, digests
        )
        outcomes = self._model(seen, self.world.installed).outcomes()
        by_key = {record.key: record for record in seen.objects}
        for key in outcomes.keys() | by_key.keys():
            record, outcome = by_key.get(key), outcomes.get(key)
            word, content = _shown(record)
            if outcome is None or (word, content) != (outcome.word, outcome.content):
                found.append(Violation("I13", str(key), f"is {word} {content}, not {outcome}"))
        self._judge(found)

    # -- parts -----------------------------------------------------------------------

    def _judge(self, found: list[Violation]) -> None:
        self.checked += 1
        if found:
            raise Broken("\n".join(str(item) for item in sorted(found)))

    def _model(self, seen: Seen, code: Installed) -> Model:
        return Model(_applied(seen), self.world.inputs.identity, code.revisions)

    def _learn(self, seen: Seen) -> None:
        """Remember what each spec may hold, while this chain of specs is the current one."""
        specs = with_children(_applied(seen))
        name = canonical_json([sorted((str(k), s) for k, s in specs.items())])
        releases = enumerate(self.world.releases)
        for identity, (number, code) in itertools.product(self.world.identities, releases):
            if (name, identity, number) in self._known_worlds:
                continue
            self._known_worlds.add((name, identity, number))
            model = Model(_applied(seen), {"tiny": identity}, code.revisions)
            for key, outcome in model.outcomes().items():
                spec = canonical_json(specs[key])
                self._contents.setdefault((key, spec), set()).add(outcome.content)
            for key, content in model.geometries().items():
                spec = canonical_json(specs[key])
                self._geometries.setdefault((key, spec), set()).add(content)

    def _heal(self, seen: Seen) -> None:
        """Forget harm that was repaired or whose artifact is not known any more."""
        for digest in list(self.world.harmed):
            artifact = seen.artifacts.get(digest)
            if artifact is None or self._damage(artifact) is None:
                self.world.harmed.discard(digest)

    def _is_whole(self, seen: Seen, digest: str) -> list[Violation]:
        """What the database says was published lies there with all its bytes."""
        artifact = seen.artifacts[digest]
        what = self._damage(artifact)
        where = f"{artifact.stage}/{digest[:12]}"
        return [Violation("published", where, what)] if what is not None else []

    def _damage(self, artifact: ArtifactRecord) -> str | None:
        try:
            self.world.state.artifacts.verify(artifact)
        except (Corrupt, OSError) as damage:
            return str(damage)
        return None

    def _is_harmed(self, seen: Seen, violation: Violation) -> bool:
        rests_on = {str(r.key): r.status.artifact.digest for r in seen.objects if r.status.artifact}
        return rests_on.get(violation.where) in self.world.harmed

    def _contents_were_once_right(self, seen: Seen) -> list[Violation]:
        """A Ready object holds what its spec stands for, with upstreams as they once were."""
        found = []
        for record in seen.objects:
            if not record.ready or record.status.artifact is None:
                continue
            right = self._contents.get((record.key, canonical_json(record.spec)), set())
            content = record.status.artifact.content_digest
            if content not in right:
                what = f"holds {content[:12]}, which its spec never stood for"
                found.append(Violation("provenance", str(record.key), what))
        return found

    def _geometries_were_once_right(self, seen: Seen) -> list[Violation]:
        """A geometry holds what one of the mappings stood for; it belongs to no object.

        And that of a Ready mapping what this one's spec stands for.
        """
        found, ever = [], set().union(*self._geometries.values())
        for digest, artifact in seen.artifacts.items():
            if artifact.stage == "geometry" and artifact.content_digest not in ever:
                what = "holds what no mapping ever stood for"
                found.append(Violation("provenance", f"geometry/{digest[:12]}", what))
        for record in seen.objects:
            if record.key.kind != "Mapping" or not record.ready:
                continue
            geometry = seen.artifacts.get(record.status.inputs["geometry"]["digest"])
            right = self._geometries.get((record.key, canonical_json(record.spec)), set())
            if geometry is not None and geometry.content_digest not in right:
                what = "was made of a geometry that its spec never stood for"
                found.append(Violation("provenance", str(record.key), what))
        return found

    def _living_workers_keep_their_jobs(self, seen: Seen) -> list[Violation]:
        """A lease is lost only by a worker that died or was silent for as long as it lasts.

        Whatever the date was set to. Of the time in which everything was stopped, a beat counts.
        """
        now, found = self.world.clock.elapsed(), []
        for job in seen.jobs:
            losses, token = self._losses.get(job.id, (0, 0))
            self._losses[job.id] = (job.losses, job.token)
            hand = self.world.holders.get(token)
            if job.losses <= losses or hand is None or hand.died or hand.paused:
                continue
            silent = now - hand.heard_at + hand.stops * HEARTBEAT_SECONDS
            if silent < self.world.settings.lease_seconds:
                what = "was taken from a worker that is alive and was heard of"
                found.append(Violation("lease", f"{job.stage} job {job.id}", what))
        return found

    def _starts_keep_the_rate_as_time_really_passed(self, seen: Seen) -> list[Violation]:
        """I11: measured by a clock of the simulation's own, at the moment of each claim."""
        starts, limit = self.world.starts, self.world.settings.job_starts_per_minute
        new = [t for t, _, _ in seen.starts if t in starts and t not in self._started]
        self._started.update({token: starts[token] for token in new})
        times = sorted(self._started.values()) if new else []
        return [
            Violation("I11", f"starts at {first:.3f}", f"more than {limit} in 60 real seconds")
            for first, beyond in zip(times, times[limit:], strict=False)
            if beyond - first < STARTS_WINDOW_SECONDS - ROUNDING_SECONDS
        ]

    def _everything_was_looked_at(self, seen: Seen) -> list[Violation]:
        found = []
        for record in seen.objects:
            if record.status.observed_generation != record.generation:
                what = f"generation {record.generation} was not looked at"
                found.append(Violation("idle", str(record.key), what))
        specs = with_children(_applied(seen))
        by_key = {record.key: record.spec for record in seen.objects}
        for key in sorted(specs.keys() | by_key.keys()):
            if specs.get(key) != by_key.get(key):
                found.append(Violation("idle", str(key), "is not what its owner's spec says"))
        return found

    def _only_wanted_jobs(self, seen: Seen) -> list[Violation]:
        wanted = {record.wanted_digest for record in seen.objects}
        with self.world.state.database.read() as connection:
            helping = shares.listed(connection)
        return [
            Violation("idle", f"{job.stage} job {job.id}", f"is {job.state}, but nobody wants it")
            for job in seen.jobs
            if job.state in jobs.ACTIVE
            and (helping[job.id].digest if job.id in helping else job.digest) not in wanted
        ]

    def _nothing_rests_on_the_past(
        self, seen: Seen, life: Life, *, resynced: bool
    ) -> list[Violation]:
        """A Ready object rests on Ready upstreams and holds what the specs of now stand for."""
        world, found = self.world, []
        if world.identity_unseen:
            return found
        outcomes = self._model(seen, life.code).outcomes()
        by_key = {record.key: record for record in seen.objects}
        for record in seen.objects:
            if not record.ready or record.status.is_of_older_rules:
                continue  # it says itself that the code was another one
            if record.key not in outcomes:
                continue  # a child too many, which was found where everything is looked at
            if (
                resynced
                and record.status.artifact
                and record.status.artifact.digest in world.harmed
            ):
                what = "is Ready after a resync, but its artifact was damaged"
                found.append(Violation("I4", str(record.key), what))
            for key in object_references(record):
                if key not in by_key or not by_key[key].ready:
                    what = f"is Ready, but {key} is not"
                    found.append(Violation("upstream", str(record.key), what))
            if _shown(record) != (outcomes[record.key].word, outcomes[record.key].content):
                what = f"is {_shown(record)}, not {outcomes[record.key]}"
                found.append(Violation("provenance", str(record.key), what))
        return found


def _applied(seen: Seen) -> dict[Key, dict[str, Any]]:
    return {record.key: record.spec for record in seen.objects if record.owner is None}


def _shown(record: ObjectRecord | None) -> tuple[str, str | None]:
    if record is None:
        return "gone", None
    if record.ready and record.status.artifact is not None:
        return "ready", record.status.artifact.content_digest
    return ("answered" if record.ready else "stalled" if record.stalled else "unsettled"), None

"""The job table against the job state machine, written down a second time in plain dicts."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loopscope.specs.actions import Action
from loopscope.specs.keys import Key
from loopscope.state.db import jobs
from loopscope.state.db.jobs import Fenced
from loopscope.state.records import Progress
from loopscope.state.retry_policy import RetryPolicy
from tests.simulated import VirtualClock, new_state

KEY = Key("Capture", "default", "cap")
ACTIONS = [Action("capture", {"number": number}, {"number": number}) for number in range(3)]
POLICY = RetryPolicy(attempts_max=3, losses_max=2, backoff_seconds=10.0, backoff_seconds_max=15.0)
PAUSES_SECONDS = [10.0, 15.0]
JITTER = 1.1
LEASE_SECONDS = 30.0
STARTS_KEPT_SECONDS = 3600.0

recent = st.sampled_from([0, 0, 0, 1, 2, 3])
"""How far back among the jobs, or among the claims that workers hold, most of them stale."""
HOW_A_RUN_ENDS = st.sampled_from(["later", "lose", "release", "never", "succeed", "postpone"])
has_jobs = precondition(lambda self: self.known)
has_claims = precondition(lambda self: self.held)


@dataclass(frozen=True)
class Known:
    """What the model knows of a job."""

    digest: str
    not_before: float
    state: str = "pending"
    token: int = 0
    attempts: int = 0
    losses: int = 0
    worker: str | None = None
    lease_expires_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    reason: str | None = None

    @property
    def active(self):
        return self.state in ("pending", "running")


class JobsAgainstModel(RuleBasedStateMachine):
    """``held`` are jobs as workers got them: they go on trying when others have the job."""

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.database = new_state(Path(self.folder.name) / "state").database
        self.clock = VirtualClock()
        self.known, self.progress, self.starts = {}, {}, []
        self.token, self.held = 0, []
        for action in ACTIONS[:2]:
            self.enqueue(action)

    def teardown(self):
        if hasattr(self, "folder"):
            self.database.close()
            self.folder.cleanup()

    # -- what the controller does -----------------------------------------------------

    @rule(action=st.sampled_from(ACTIONS))
    def enqueue(self, action):
        active = self.active_of(action.digest)
        job_id, added = self.write(jobs.enqueue, action, KEY, 1, now=self.now)
        assert added == (active is None)
        if added:
            self.is_new(job_id, action.digest)
        else:
            assert job_id == active

    @has_jobs
    @rule(back=recent)
    def claim(self, back):
        """Whichever it is: due, waiting for its pause, running or ended."""
        job_id = self.job(back)
        if self.known[job_id].state == "pending":
            self.claimed(job_id)
        else:
            self.is_refused(jobs.claim, job_id, "w", LEASE_SECONDS, now=self.now)

    @rule()
    def claim_the_next(self):
        due = [id_ for id_, job in self.known.items()
               if job.state == "pending" and job.not_before <= self.now]  # fmt: skip
        if due:
            self.claimed(min(due))

    @has_jobs
    @rule(back=recent, adopted=st.booleans())
    def end_whoever_holds_it(self, back, adopted):
        """The job is no longer wanted, or its artifact was found."""
        job_id = self.job(back)
        active = self.known[job_id].active
        if adopted:
            self.write(jobs.adopt_artifact, job_id, now=self.now)
        else:
            changed = self.write(jobs.cancel, job_id, "Superseded", "m", now=self.now)
            assert changed is active
        if active:
            state, reason = ("succeeded", None) if adopted else ("cancelled", "Superseded")
            self.becomes(job_id, state=state, reason=reason, **self.ended_now)

    @has_jobs
    @rule(back=recent)
    def retry(self, back):
        job_id = self.job(back)
        job = self.known[job_id]
        active = self.active_of(job.digest)
        new = self.write(jobs.retry, job_id, now=self.now)
        if active is None:
            self.is_new(new, job.digest)
        else:
            assert new == active

    @rule(seconds=st.sampled_from([1.0, 9.0, 20.0, 4000.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    # -- what workers do, with a token that may be old ----------------------------------

    @has_claims
    @rule(back=recent)
    def heartbeat(self, back):
        claim = self.claim_held(back)
        if self.try_to(jobs.heartbeat, claim, LEASE_SECONDS, now=self.now):
            self.becomes(claim.id, lease_expires_at=self.now + LEASE_SECONDS)

    @has_claims
    @rule(back=recent)
    def seal_a_shard(self, back):
        claim = self.claim_held(back)
        if self.try_to(jobs.forgive_losses, claim):
            self.becomes(claim.id, losses=0)

    @has_claims
    @rule(back=recent, done=st.integers(0, 2))
    def report_progress(self, back, done):
        claim = self.claim_held(back)
        seen = Progress(claim.id, "Capturing", done, 2, "prompts", 0.0, self.now)
        if self.try_to(jobs.report_progress, claim, seen):
            self.progress[claim.id] = seen

    @has_jobs
    @rule(back=recent, how=HOW_A_RUN_ENDS, times=st.sampled_from([1, 3]))
    def run(self, back, how, times):
        """Claim a job and end it, again and again as long as it comes back."""
        job_id = self.job(back)
        for _ in range(times):
            if self.known[job_id].state == "pending":
                self.claimed(job_id)
                self.ends(self.held[-1], how)

    @has_claims
    @rule(back=recent, how=HOW_A_RUN_ENDS)
    def end(self, back, how):
        self.ends(self.claim_held(back), how)

    def ends(self, claim, how):
        if how == "lose":
            self.lose(claim)
        elif how in ("later", "never"):
            self.fail(claim, transient=how == "later")
        elif how == "release" and self.try_to(jobs.release, claim):
            self.known[claim.id] = self.freed(claim.id)
        elif how == "postpone":
            self.postpone(claim)
        elif how == "succeed" and self.try_to(jobs.succeed, claim, now=self.now):
            self.becomes(claim.id, state="succeeded", reason=None, **self.ended_now)

    def postpone(self, claim):
        until = self.now + POLICY.wait_seconds
        if self.try_to(jobs.postpone, claim, "DiskFull", "m", until=until):
            waiting = self.freed(claim.id)
            self.known[claim.id] = replace(waiting, not_before=until, reason="DiskFull")

    def lose(self, claim):
        """Only a lease that was seen to be lost is taken back, not the one that followed."""
        if not self.holds(claim):
            self.is_refused(jobs.lose, claim, now=self.now, policy=POLICY)
            return
        losses = self.known[claim.id].losses + 1
        again = losses < POLICY.losses_max
        assert self.write(jobs.lose, claim, now=self.now, policy=POLICY) is again
        self.known[claim.id] = replace(self.freed(claim.id, ended=not again), losses=losses)
        if not again:
            self.becomes(claim.id, reason="WorkerLost")

    def fail(self, claim, *, transient):
        words = {"transient": transient, "now": self.now, "policy": POLICY}
        if not self.try_to(jobs.fail, claim, "OutOfMemory", "m", **words):
            return
        attempts = self.known[claim.id].attempts + 1
        again = transient and attempts < POLICY.attempts_max
        self.known[claim.id] = replace(
            self.freed(claim.id, ended=not again), attempts=attempts, reason="OutOfMemory"
        )
        if again:
            not_before = self.read(jobs.get, claim.id).not_before
            pause = PAUSES_SECONDS[attempts - 1]
            assert self.now + pause <= not_before <= self.now + pause * JITTER
            self.becomes(claim.id, not_before=not_before)

    @has_claims
    @rule(back=recent, guess=st.sampled_from([-1, 1]))
    def guess_a_token(self, back, guess):
        claim = self.claim_held(back)
        wrong = replace(claim, token=claim.token + guess)
        if not self.holds(wrong):  # the job's next token may be just one higher
            self.is_refused(jobs.succeed, wrong.id, wrong.token, now=self.now)

    # -- the model ----------------------------------------------------------------------

    @property
    def now(self):
        return self.clock.now()

    @property
    def ended_now(self):
        return {"finished_at": self.now, "lease_expires_at": None}

    def write(self, verb, *arguments, **options):
        with self.database.write() as connection:
            return verb(connection, *arguments, **options)

    def read(self, verb, *arguments, **options):
        with self.database.read() as connection:
            return verb(connection, *arguments, **options)

    def is_refused(self, verb, *arguments, **options):
        with pytest.raises(Fenced):
            self.write(verb, *arguments, **options)

    def try_to(self, verb, claim, *arguments, **options):
        """Act as the holder of a claim; return whether that was accepted, as it should."""
        if self.holds(claim):
            self.write(verb, claim.id, claim.token, *arguments, **options)
            return True
        self.is_refused(verb, claim.id, claim.token, *arguments, **options)
        return False

    def holds(self, claim):
        job = self.known[claim.id]
        return (job.state, job.token) == ("running", claim.token)

    def job(self, back):
        return max(self.known) - back % len(self.known)

    def claim_held(self, back):
        return self.held[-1 - back % len(self.held)]

    def active_of(self, digest):
        active = [id_ for id_, job in self.known.items() if job.active and job.digest == digest]
        assert len(active) <= 1
        return active[0] if active else None

    def is_new(self, job_id, digest):
        assert job_id == max(self.known, default=0) + 1
        self.known[job_id] = Known(digest, self.now)

    def becomes(self, job_id, **changes):
        self.known[job_id] = replace(self.known[job_id], **changes)

    def freed(self, job_id, *, ended=False):
        """Return the job without a worker: waiting again, or failed."""
        end = {"state": "failed", "finished_at": self.now} if ended else {"state": "pending"}
        return replace(self.known[job_id], worker=None, lease_expires_at=None, **end)

    def claimed(self, job_id):
        worker = f"worker-{self.token}"
        job = self.write(jobs.claim, job_id, worker, LEASE_SECONDS, now=self.now)
        assert job.token > self.token, "a token is never given twice"
        self.token = job.token
        before = self.known[job_id].reason
        kept = before if before == "OutOfMemory" else None  # it makes the worker take less
        self.becomes(job_id, state="running", token=job.token, worker=worker, reason=kept,
                     started_at=self.now, lease_expires_at=self.now + LEASE_SECONDS)  # fmt: skip
        self.progress.pop(job_id, None)
        self.starts.append(self.now)
        self.held.append(job)

    # -- what always holds ----------------------------------------------------------------

    @invariant()
    def the_table_is_the_model(self):
        records = self.read(jobs.listed, ended=True)
        assert {record.id: as_known(record) for record in records} == self.known
        for record in records:
            ended = record.state in ("succeeded", "failed", "cancelled")
            assert ended == (record.finished_at is not None), "an end has a time, and only one"
            assert (record.lease_expires_at is not None) == (record.state == "running")

    @invariant()
    def what_is_asked_of_it_is_true(self):
        running = {id_ for id_, job in self.known.items() if job.state == "running"}
        assert {job.id for job in self.read(jobs.running)} == running
        active = {id_: job.digest for id_, job in self.known.items() if job.active}
        assert self.read(jobs.active_digests) == active
        lately = self.now - STARTS_KEPT_SECONDS
        assert self.read(jobs.starts_since, lately) == [at for at in self.starts if at > lately]
        shown = {id_: seen for id_, seen in self.progress.items() if id_ in running}
        assert self.read(jobs.progress_of) == shown


def as_known(record):
    return Known(**{name: getattr(record, name) for name in Known.__dataclass_fields__})


TestJobsAgainstModel = JobsAgainstModel.TestCase

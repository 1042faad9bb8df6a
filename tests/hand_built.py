"""Frozen records as tests build them by hand."""

from dataclasses import replace

from loopscope.reconcilers.plan import Wanted
from loopscope.reconcilers.references import InputReference, input_references
from loopscope.specs.keys import Key
from loopscope.specs.status import ArtifactReference, Condition, Status
from loopscope.state.records import ArtifactRecord, FileEntry, InputRecord, JobRecord, ObjectRecord
from tests.simulated import canonical

MODEL = {"ref": {"identity": "model-id", "folder": "/a"}, "d_model": 8, "n_layers": 4}
DICTIONARY = {"ref": {"identity": "dict-id", "path": "/d"}, "d_in": 8, "hook_name": None}
CAPTURE_KEY = Key("Capture", "default", "cap")


def stored(kind, name, spec, **changes):
    key = Key(kind, "default", name)
    return ObjectRecord(key, f"uid-{name}", 1, 1, spec, Status(), 0.0, **changes)


def artifact(stage, digest, content="content", metrics=None, **hashes):
    files = {name.replace("_", "."): FileEntry(value, 1) for name, value in hashes.items()}
    return ArtifactRecord(stage, digest, content, files, metrics or {}, 0.0)


def observation(reference: InputReference, facts, **answer):
    known = {"reason": None, "message": None, "terminal": False, "observed_at": 0.0, **answer}
    return InputRecord(reference.digest, reference.kind, reference.reference, facts, **known)


def with_inputs(record, facts, **answer):
    return {ref.digest: observation(ref, facts, **answer) for ref in input_references(record)}


def made_ready(record, made, summary=None, inputs=None):
    """Return the record as it stands when its artifact was accepted."""
    condition = Condition("Ready", "True", "Succeeded", "", record.generation)
    reference = ArtifactReference(made.stage, made.digest, made.content_digest)
    status = Status(record.generation, (condition,), summary or {}, inputs or {}, reference)
    return replace(record, status=status, wanted_digest=made.digest)


def job(state, **changes):
    key = changes.pop("object", CAPTURE_KEY)
    known = {"attempts": 0, "losses": 0, "not_before": 0.0, "created_at": 0.0, "generation": 1}
    return JobRecord(
        id=7, stage="capture", digest="d", state=state, object=key, payload={}, **known | changes
    )


def digest_of(desired):
    assert isinstance(desired, Wanted), desired
    return desired.action.digest


def condition_of(plan, type_="Ready"):
    found = plan.status.condition(type_)
    return (found.status, found.reason) if found else None


DECOMPOSITION = canonical(
    "Decomposition", {"captureRef": {"name": "cap"}, "dictionary": {"path": "/d"}}
)
CAPTURED = artifact("capture", "cap-digest", "cap-content", {"d_model": 8}, norms_json="n")

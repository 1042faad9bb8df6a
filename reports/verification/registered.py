"""Registrations held against what was then done."""

from __future__ import annotations

import math
from datetime import datetime

from loopscope.reports.crate import REGISTER
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.artifacts.steering import VERDICT
from loopscope.specs.blinding import arms_by_letter
from loopscope.specs.pipeline import NODE_NAMES, NODES, PIPELINE, NodeName
from loopscope.specs.registration import (
    InForce,
    RegisterExtract,
    Registration,
    in_force,
    seal_of,
)
from loopscope.views.registration import plan_of, spec_digests

CHAIN = "register: sealed records in an unbroken chain"
LETTERS = "register: letters of the arms"
OUTCOME: NodeName = "steering"
AFTER_UNBLINDING = " after unblinding"


def check_registered(bundle: OpenBundle, findings: Findings) -> None:
    """Check the records of a bundle, and name what was done otherwise than the last one says."""
    extract: RegisterExtract | None = None
    with findings.part(CHAIN, REGISTER):
        extract = bundle.json(REGISTER)
        if extract is None:
            findings.leave_out("whether this was expected", "the experiment was not registered")
            return
        _check_chain(extract, findings)
        found = in_force(extract["records"])
        if found is None:
            findings.differs(CHAIN, "records", "an opening", "an intention")
            return
        record = found.intention
        if found.opening is not None:
            findings.deviate(
                f"the arms were named before as much was scored as registered, "
                f"{found.opening['registered_at']}: {found.opening['note']}"
            )
        unblinded = _unblinded_at(bundle, extract, found)
        done = ", ".join(record["known"]) or "nothing"
        findings.answer(f"registered {record['registered_at']}, when {done} was done")
        _check_time(bundle, record, findings)
        _name_others(extract, record, unblinded, findings)
        _check_spec(bundle, record, unblinded, findings)
        _check_inputs(bundle, record, findings)
        _answer(bundle, record, findings)
        _check_letters(bundle, extract, record, findings)


def _check_chain(extract: RegisterExtract, findings: Findings) -> None:
    """Check each record against its seal and its place among the digests of all."""
    chain = extract["chain"]
    for record in extract["records"]:
        place = f"registration {record['number']}"
        findings.same(CHAIN, f"{place}, seal", record["digest"], seal_of(record))
        findings.same(CHAIN, f"{place}, place", record["digest"], chain[record["number"] - 1])
        before = chain[record["number"] - 2] if record["number"] > 1 else None
        findings.same(CHAIN, f"{place}, previous", record["previous"], before)


def _check_letters(
    bundle: OpenBundle, extract: RegisterExtract, record: Registration, findings: Findings
) -> None:
    """Check which arm each letter is said to have been."""
    if "letters" not in extract:
        findings.leave_out("which arm each letter was", "no arm was named, or an older bundle")
        return
    told = arms_by_letter(record["digest"], bundle.arms_steered())
    findings.same(LETTERS, "letters", extract["letters"], told)
    findings.answer(f"letters: {', '.join(f'{one} {arm}' for one, arm in told.items())}")


def _unblinded_at(bundle: OpenBundle, extract: RegisterExtract, found: InForce) -> float:
    """Return when the arms could first be named (Unix seconds): infinite where they never could.

    That is when a steering of the registered size ended, or they were opened.
    """
    plan, times = found.intention["plan"], [math.inf]
    if found.opening is not None:
        times.append(datetime.fromisoformat(found.opening["registered_at"]).timestamp())
    if "letters" in extract and (manifest := bundle.manifest(OUTCOME)) is not None:
        times.append(manifest["createdAt"])
    for one in extract.get("steerings", []):
        size = one["openings"], one["samples_per_opening"]
        if size[0] >= plan["openings"] and size[1] >= plan["samples_per_opening"]:
            times.append(datetime.fromisoformat(one["ended_at"]).timestamp())
    return min(times)


def _check_time(bundle: OpenBundle, record: Registration, findings: Findings) -> None:
    manifest = bundle.manifest(OUTCOME)
    if manifest is None:
        return
    registered = datetime.fromisoformat(record["registered_at"]).timestamp()
    if manifest["createdAt"] - manifest.get("seconds", 0.0) < registered:
        findings.deviate(
            f"the steering was begun before it was registered ({record['registered_at']})"
        )


def _name_others(
    extract: RegisterExtract, record: Registration, unblinded: float, findings: Findings
) -> None:
    """Name each other steering that ended: somebody may have looked at it."""
    if "steerings" not in extract:
        findings.leave_out("whether another steering was looked at", "an older bundle")
    registered = datetime.fromisoformat(record["registered_at"])
    for one in extract.get("steerings", []):
        ended = datetime.fromisoformat(one["ended_at"])
        when = "after" if ended >= registered else "before"
        later = f",{AFTER_UNBLINDING}" if ended.timestamp() > unblinded else ""
        findings.deviate(
            f"another steering, of {one['openings']} openings with {one['samples_per_opening']} "
            f"samples each, ended {one['ended_at']}, {when} it was registered{later}"
        )


def _later(bundle: OpenBundle, name: NodeName, unblinded: float) -> str:
    """Return that a stage was made after unblinding, where the arms had their names by then."""
    manifest = bundle.manifest(name)
    made = -math.inf if manifest is None else manifest["createdAt"]
    return f"; it was made{AFTER_UNBLINDING}" if made > unblinded else ""


def _check_spec(
    bundle: OpenBundle, record: Registration, unblinded: float, findings: Findings
) -> None:
    before, now = record["spec"], spec_digests(bundle.experiment)
    for name in NODE_NAMES:
        if name not in now and name not in before:
            continue
        if name not in now or name not in before:
            words = "added" if name in now else "taken out"
            later = _later(bundle, name, unblinded)
            findings.deviate(f"{name} was {words} after it was registered{later}")
        elif now[name] != before[name]:
            later = _later(bundle, name, unblinded)
            findings.deviate(f"the spec of {name} was changed after it was registered{later}")
    if OUTCOME in now:
        plan = plan_of(bundle.spec(OUTCOME))
        for field, registered in record["plan"].items():
            if registered != dict(plan)[field]:
                findings.deviate(f"{field}: registered {registered}, done {dict(plan)[field]}")


def _check_inputs(bundle: OpenBundle, record: Registration, findings: Findings) -> None:
    for name, identity in record["inputs"].items():
        manifest = bundle.manifest("capture" if name == "model" else NODES[name].name)
        if manifest is None:
            continue
        used = manifest["inputs"]["model" if name == "model" else "dictionary"]["identity"]
        if used != identity:
            findings.deviate(f"another {name} than was registered: {identity[:12]}, {used[:12]}")
    for node in PIPELINE:
        manifest = bundle.manifest(node.name)
        known = record["code"]["revisions"].get(node.stage)
        if manifest is not None and known is not None and manifest["codeRevision"] != known:
            findings.deviate(
                f"{node.name} was made by revision {manifest['codeRevision']} of its code, "
                f"registered was {known}"
            )


def _answer(bundle: OpenBundle, record: Registration, findings: Findings) -> None:
    """Say what came of each hypothesis, from the contrasts of the verdict."""
    verdict = bundle.document(VERDICT)
    known = {one["contrast"]: one for one in verdict["contrasts"]} if verdict is not None else {}
    for one in record["hypotheses"]:
        found = known.get(one["contrast"])
        sign = ">" if one["sign"] == "greater" else "<"
        words = f"{one['contrast']} {sign} 0 in {one['outcome']}"
        if found is None:
            findings.answer(f"{words}: not tested")
            continue
        p = found["p_greater"] if one["sign"] == "greater" else found["p_less"]
        low, high = found["low"], found["high"]
        within = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
        findings.answer(
            f"{words}: {found['estimate']:+.3f}{within}, one-sided p "
            f"{'not known' if p is None else f'{p:.2g}'}"
        )

"""The owner that a bundle names, held against what its spec asks for."""

from __future__ import annotations

from loopscope.reports.crate import OWNER
from loopscope.reports.verification.findings import Findings
from loopscope.reports.verification.opened import OpenBundle
from loopscope.specs.canonical import digest
from loopscope.views.owner import OwnerJson, asks_for, owner_words

OWNED = "owner: its spec, and that it asks for this experiment"


def check_owner(bundle: OpenBundle, findings: Findings) -> None:
    """Derive the experiment's spec again from that of the sweep or study that it is one of."""
    with findings.part(OWNED, OWNER):
        (experiment, *_) = bundle.json("status.json")
        named = experiment["metadata"].get("ownerReferences", [])
        found: OwnerJson | None = bundle.json(OWNER)
        if found is None:
            if named:
                why = f"{named[0]['kind']} {named[0]['name']} was gone, or it is an older bundle"
                findings.leave_out("what it is one of", why)
            return
        stated, applied = found["object"], bundle.applicable
        for place, recorded, computed in (
            ("kind", stated["kind"], named[0]["kind"]),
            ("name", stated["metadata"]["name"], named[0]["name"]),
            ("uid", found["uid"], named[0]["uid"]),
            ("digest", found["digest"], digest(stated["spec"])),
        ):
            findings.same(OWNED, place, recorded, computed)
        name = applied["metadata"]["name"]
        asked = asks_for(stated, name, applied["spec"])
        findings.same(OWNED, f"asks for {name} with the spec of spec.yaml", found["asks"], asked)
        findings.owner = owner_words(found, name)

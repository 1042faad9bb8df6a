"""``verify``: everything that a bundle says, held against what it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loopscope.reports.crate import METADATA
from loopscope.reports.verification.ablation import check_ablation
from loopscope.reports.verification.damage import check_damage
from loopscope.reports.verification.drift import check_drift
from loopscope.reports.verification.files import check_files, identifier_of
from loopscope.reports.verification.findings import Difference, Findings
from loopscope.reports.verification.gate import check_gate
from loopscope.reports.verification.latents import check_latents
from loopscope.reports.verification.looks import check_looks
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.owned import check_owner
from loopscope.reports.verification.registered import check_registered
from loopscope.reports.verification.robustness import check_robustness
from loopscope.reports.verification.scoring import check_scoring
from loopscope.reports.verification.stated import check_stated
from loopscope.reports.verification.steering import check_steering
from loopscope.reports.verification.texts import check_texts
from loopscope.specs.pipeline import NodeName
from loopscope.state.failures import TerminalFailure

Check = Callable[[OpenBundle, Findings], None]
_PAGES = "report.html, report-static.html and citation.txt"


@dataclass(frozen=True)
class Verification:
    """What was found: values compared by check, differences, what was left out and why.

    ``answers`` say what came of what was registered, ``deviations`` what was done otherwise.
    ``ended`` says how a steering that might stop early came to its end, empty where none might;
    ``owner`` of which sweep or study the experiment is one; ``identifier`` is the digest by which
    the bundle is cited, None where it has none.
    """

    identifier: str | None
    compared: dict[str, int]
    differences: list[Difference]
    left_out: dict[str, str]
    deviations: list[str]
    answers: list[str]
    ended: str
    owner: str

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def verify(folder: Path) -> Verification:
    """Hold a bundle against itself. Raises TerminalFailure ``NoBundle``."""
    if not (folder / METADATA).is_file():
        raise TerminalFailure(
            "NoBundle",
            f"{folder} holds no {METADATA}: it is no bundle, or one of a version that wrote none; "
            "export it again",
        )
    bundle, findings = OpenBundle(folder), Findings()
    check_files(bundle, findings)
    check_stated(bundle, findings)
    with findings.part("rules", "manifests"):
        _check_numbers(bundle, findings)
    check_owner(bundle, findings)
    check_registered(bundle, findings)
    findings.leave_out(_PAGES, "they are compared by their hashes alone")
    return Verification(
        identifier_of(bundle),
        dict(findings.compared),
        list(findings.differences),
        dict(findings.left_out),
        list(findings.deviations),
        list(findings.answers),
        findings.ended,
        findings.owner,
    )


def _check_numbers(bundle: OpenBundle, findings: Findings) -> None:
    """Compute again what was made by the rules of this version; other rules give other numbers."""
    parts: dict[NodeName, tuple[Check, ...]] = {
        "mapping": (check_latents, check_gate),
        "steering": (check_texts, check_steering, check_looks, check_robustness),
        "scoring": (check_scoring,),
        "ablation": (check_ablation,),
        "damage": (check_damage,),
        "drift": (check_drift,),
    }
    for node, checks in parts.items():
        if node not in ("mapping", "steering") and node not in bundle.experiment:
            continue
        if bundle.manifest(node) is None:
            findings.leave_out(f"the {node}", "it is not in this bundle")
        elif changed := bundle.changed_rules(node):
            findings.leave_out(f"the {node}", f"it was made by other rules ({'; '.join(changed)})")
        else:
            for check in checks:
                check(bundle, findings)

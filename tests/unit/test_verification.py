"""What counts as the same, and what a damaged or hostile bundle can do to ``verify``: nothing."""

import json
import math
import os

import numpy as np
import pytest

from loopscope.reports.bundle import export_bundle
from loopscope.reports.crate import METADATA, sealed, written
from loopscope.reports.verification.files import SIZES, check_files
from loopscope.reports.verification.findings import Findings, is_same
from loopscope.reports.verification.opened import OpenBundle
from loopscope.reports.verification.verify import verify
from loopscope.specs.canonical import digest
from loopscope.state.failures import TerminalFailure
from loopscope.views.experiment import ExperimentView
from tests.tampering import copied
from tests.unit.reports_case import build


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A bundle with numbers out of thin air: nothing follows from anything."""
    folder = tmp_path_factory.mktemp("made-up")
    return export_bundle(ExperimentView.load(*build(folder)), folder / "bundle")


@pytest.fixture
def bundle(made_up, tmp_path):
    return copied(made_up, tmp_path / "bundle")


def files_found(bundle):
    findings = Findings()
    check_files(OpenBundle(bundle), findings)
    return findings


def places(findings):
    return [one.place for one in findings.differences]


def test_no_byte_of_the_description_before_its_graph_can_be_another_one(bundle):
    """What the seal does not cover: the name and the value of the context."""
    path = bundle / METADATA
    text = path.read_bytes()
    unnoticed = []
    for at in range(text.index(b'"@graph"')):
        path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        if not files_found(bundle).differences:
            unnoticed.append(at)
    assert unnoticed == []


@pytest.mark.parametrize(
    ("recorded", "computed", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        (1.0, 1.00001, False),
        (1e-300, 0.0, True),
        (None, math.nan, True),
        (None, 0.0, False),
        (True, 1, False),
        (3, 3.0, True),
        ("GO", "GO", True),
        ("GO", "NO-GO", False),
        ("1", 1, False),
        (np.float64(2.0), 2, True),
        (np.bool_(True), True, True),
        ([1], 1, False),
    ],
)
def test_values_are_the_same_within_rounding_and_of_one_kind(recorded, computed, same):
    assert is_same(recorded, computed) is same


def test_a_key_more_or_less_is_a_difference():
    findings = Findings()
    findings.same("c", "p", {"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": 4})
    assert places(findings) == ["p.b[1]", "p.c"]
    assert findings.compared == {"c": 4}


def test_a_column_of_another_length_is_one_difference_and_rows_are_named():
    findings = Findings()
    findings.column("c", "p", [1.0, math.nan, 3.0], np.array([1.0, math.nan, 4.0]))
    findings.column("c", "q", [1.0], np.array([1.0, 2.0]))
    assert places(findings) == ["p[2]", "q, rows"]


def test_what_breaks_inside_a_part_is_a_difference_of_that_part():
    findings = Findings()
    with findings.part("c", "p"):
        raise KeyError("gone")
    assert places(findings) == ["p"] and "KeyError" in findings.differences[0].computed


def test_all_bytes_of_a_bundle_are_as_it_says(bundle):
    findings = files_found(bundle)
    assert findings.differences == []
    assert findings.compared[SIZES] > 40


def test_numbers_out_of_thin_air_are_refused_without_a_crash(bundle):
    found = verify(bundle)
    assert {one.check.partition(":")[0] for one in found.differences} >= {"gate", "verdict"}


def test_a_folder_without_a_description_is_no_bundle(tmp_path):
    with pytest.raises(TerminalFailure, match="holds no ro-crate"):
        verify(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"@graph": [{}]}', b"[" * 10**5])
def test_a_description_that_cannot_be_read_is_a_difference(bundle, content):
    (bundle / METADATA).write_bytes(content)
    found = verify(bundle)
    assert not found.holds and found.identifier is None


def test_nothing_outside_of_a_bundle_is_read(bundle, tmp_path):
    (tmp_path / "secret").write_text("not yours")
    crate = json.loads((bundle / METADATA).read_text())
    entity = next(one for one in crate["@graph"] if one["@id"] == "gate.json")
    entity["@id"] = "../secret"
    (bundle / METADATA).write_text(written(sealed(crate["@graph"][1:])))
    found = files_found(bundle)
    assert sorted(one.place for one in found.differences) == ["../secret", "gate.json"]
    assert all("yours" not in one.computed for one in found.differences)


def test_links_and_pipes_are_no_files_of_a_bundle(bundle, tmp_path):
    whole = bundle / "gate.json"
    elsewhere = tmp_path / "gate.json"
    whole.rename(elsewhere)
    whole.symlink_to(elsewhere)
    os.mkfifo(bundle / "pipe")
    (bundle / "nowhere").symlink_to(tmp_path / "is-not-there")
    assert {"gate.json", "pipe", "nowhere"} <= set(places(files_found(bundle)))


@pytest.mark.parametrize("name", ["gate.json", "verdict.json", "status.json", "spec.yaml"])
@pytest.mark.parametrize("content", [b"", b"null", b"[1, 2]", b"\x00\xff", b"{" * 10**5])
def test_a_document_of_another_shape_ends_in_differences(bundle, name, content):
    (bundle / name).write_bytes(content)
    assert any(name in one.place for one in verify(bundle).differences)


@pytest.mark.parametrize("name", ["steering_scores.parquet", "features_coarse.parquet"])
def test_a_table_that_is_none_ends_in_differences(bundle, name):
    (bundle / name).write_bytes(b"PAR1 is not enough")
    assert not verify(bundle).holds


def test_what_other_rules_made_is_left_out_and_not_called_different(bundle):
    path = bundle / "manifests" / "mapping.json"
    manifest = json.loads(path.read_text())
    rest = {key: value for key, value in manifest.items() if key != "manifestDigest"}
    rest["codeRevision"] -= 1
    path.write_text(json.dumps({**rest, "manifestDigest": digest(rest)}))
    found = verify(bundle)
    assert "made by other rules (mapping revision" in found.left_out["the mapping"]
    assert not any(one.check.startswith("gate") for one in found.differences)

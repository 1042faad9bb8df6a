"""``serve`` before it serves: what is missing and what does not go together is said in one line."""

import importlib.util


def test_missing_libraries_are_named_with_the_extra_that_brings_them(loopscope, monkeypatch):
    found = importlib.util.find_spec
    gone = {"starlette", "cryptography"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else found(name)
    )
    code, _, said = loopscope("serve")
    assert code == 2
    assert "starlette, " in said and "cryptography" in said
    assert "pip install 'loopscope[serve]'" in said


def test_what_does_not_go_together_is_refused(loopscope):
    code, _, said = loopscope("serve", "--namespace", "x")
    assert code == 2 and "every namespace" in said
    code, _, said = loopscope("serve", "--no-tls", "--kubeconfig", "config")
    assert code == 2 and "--kubeconfig needs TLS" in said

"""Network file systems are refused by name, wherever in the tree they are mounted."""

import pytest

from loopscope.state.db.database import open_database
from loopscope.state.db.dialect.sqlite import file_systems
from loopscope.state.db.dialect.sqlite.file import SqliteFile
from loopscope.state.db.dialect.sqlite.file_systems import (
    LOCAL_FILE_SYSTEMS,
    LOCAL_VARIABLE,
    NETWORK_FILE_SYSTEMS,
    refuse_network_file_system,
)
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import open_state


@pytest.fixture
def mounts(tmp_path):
    """Return a function that writes a table of mounts, each ``(point, type)``."""

    def table(*rows):
        file = tmp_path / "mounts"
        file.write_text("".join(f"server:/x {point} {kind} rw 0 0\n" for point, kind in rows))
        return file

    return table


def is_refused(path, table):
    try:
        refuse_network_file_system(path, table)
    except TerminalFailure as refused:
        assert refused.reason == "NetworkFileSystem"
        assert str(path) in refused.message and "--state" in refused.message
        return True
    return False


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
def test_every_network_file_system_is_refused(mounts, tmp_path, kind):
    assert is_refused(tmp_path / "state.db", mounts(("/", kind)))


@pytest.mark.parametrize(
    "kind",
    ["virtiofs", "fakeowner", "9p", "vboxsf", "prl_fs", "hgfs", "drvfs", "fuse.vmhgfs-fuse"],
)
def test_folders_of_a_host_are_refused_as_those_of_a_server_are(mounts, tmp_path, kind):
    assert is_refused(tmp_path / "state.db", mounts(("/", "overlay"), (tmp_path, kind)))


@pytest.mark.parametrize("kind", ["newfs", "fuse.newfs", "fuse"])
def test_an_unknown_file_system_is_refused_until_somebody_vouches_for_it(
    mounts, tmp_path, monkeypatch, kind
):
    table = mounts(("/", "ext4"), (tmp_path, kind))
    with pytest.raises(TerminalFailure) as refused:
        refuse_network_file_system(tmp_path / "state.db", table)
    assert refused.value.reason == "UnknownFileSystem"
    assert f"{LOCAL_VARIABLE}={kind}" in refused.value.message
    monkeypatch.setenv(LOCAL_VARIABLE, f"other, {kind}")
    assert not is_refused(tmp_path / "state.db", table)


def test_nobody_can_vouch_for_a_network_file_system(mounts, tmp_path, monkeypatch):
    monkeypatch.setenv(LOCAL_VARIABLE, "nfs4")
    assert is_refused(tmp_path / "state.db", mounts(("/", "nfs4")))


def test_no_file_system_is_both_local_and_not():
    assert not LOCAL_FILE_SYSTEMS & NETWORK_FILE_SYSTEMS


@pytest.mark.parametrize("kind", sorted(LOCAL_FILE_SYSTEMS))
def test_local_file_systems_are_not(mounts, tmp_path, kind):
    assert not is_refused(tmp_path / "state.db", mounts(("/", kind)))


def test_the_deepest_mount_counts_and_of_two_at_one_place_the_later(mounts, tmp_path):
    path = tmp_path / "a" / "state.db"
    assert is_refused(path, mounts(("/", "ext4"), (tmp_path, "nfs4")))
    assert not is_refused(path, mounts((tmp_path / "a", "ext4"), (tmp_path, "nfs4"), ("/", "nfs")))
    assert is_refused(path, mounts(("/", "ext4"), (tmp_path, "autofs"), (tmp_path, "nfs4")))
    assert not is_refused(path, mounts((tmp_path, "nfs4"), (tmp_path, "ext4")))


def test_a_name_that_only_begins_alike_is_another_folder(mounts, tmp_path):
    rows = ("/", "ext4"), (tmp_path / "share", "nfs")
    assert not is_refused(tmp_path / "shared" / "state.db", mounts(*rows))
    assert is_refused(tmp_path / "share" / "state.db", mounts(*rows))


def test_a_mount_point_with_a_space_a_tab_or_a_backslash_is_understood(mounts, tmp_path):
    rows = ("/", "ext4"), (f"{tmp_path}/my\\040own\\011\\134disk", "cifs")
    assert is_refused(tmp_path / "my own\t\\disk" / "state.db", mounts(*rows))
    assert not is_refused(tmp_path / "my own" / "state.db", mounts(*rows))


def test_links_are_followed_of_folders_and_of_the_database_itself(mounts, tmp_path):
    remote = tmp_path / "remote"
    remote.mkdir()
    table = mounts(("/", "ext4"), (remote, "fuse.sshfs"))
    (tmp_path / "folder").symlink_to(remote)
    (tmp_path / "state.db").symlink_to(remote / "state.db")
    assert is_refused(tmp_path / "folder" / "state.db", table)
    assert is_refused(tmp_path / "state.db", table)


def test_an_unreadable_table_or_line_refuses_nothing(mounts, tmp_path):
    assert not is_refused(tmp_path, tmp_path / "no such table")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\n\xff\nalone\nserver:/x / nfs rw 0 0\n")
    assert is_refused(tmp_path, broken), "the lines that can be read still count"


def test_opening_refuses_before_anything_is_created(mounts, tmp_path, monkeypatch):
    table = mounts(("/", "nfs"))
    monkeypatch.setattr(file_systems.refuse_network_file_system, "__defaults__", (table,))
    with pytest.raises(TerminalFailure):
        open_database(SqliteFile(tmp_path / "state" / "state.db"))
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_is_refused_stays_empty(mounts, tmp_path, monkeypatch):
    table = mounts(("/", "nfs"))
    monkeypatch.setattr(file_systems.refuse_network_file_system, "__defaults__", (table,))
    with pytest.raises(TerminalFailure, match="use --state on a local disk"):
        open_state(tmp_path / "state")
    assert list((tmp_path / "state").iterdir()) == []

"""A database moves to a server and back; cut off anywhere, nothing is lost and the move goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loopscope.controller.maintenance.backup import back_up, restore_backup
from loopscope.controller.maintenance.moving import move_artifacts, move_database
from loopscope.controller.maintenance.snapshot import give_lineage
from loopscope.state import failpoints
from loopscope.state.artifacts.consistency import compare
from loopscope.state.db.whole_rows import rows_digest
from loopscope.state.failures import TerminalFailure
from loopscope.state.folder import open_state, server_of
from tests.postgres_server import PostgresServer
from tests.s3_servers import S3Server
from tests.simulated import Simulation, capture_spec, settled_experiment


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    simulation = settled_experiment(tmp_path / "state")
    simulation.state.database.close()
    return tmp_path / "state"


def moved(path: Path, url: str | None):
    return move_database(path, url, now=5.0, lineage="a name")


def rows(path: Path) -> str:
    state = open_state(path)
    try:
        found = compare(state).findings
        assert all(one.problem.startswith("Leftover") for one in found), found
        return rows_digest(state.database)
    finally:
        state.database.close()


def goes_on(path: Path, name: str) -> None:
    """Let a controller do new work there."""
    simulation = Simulation(path)
    simulation.apply(capture_spec(maxTokens=len(name) + 1), name, "Capture")
    assert simulation.settle() == ["capture"]
    simulation.state.database.close()


def test_there_and_back_again_with_work_on_either_side(postgres: PostgresServer, settled: Path):
    url = postgres.new_database()
    done = moved(settled, url)
    assert done.is_new and server_of(settled) == url and not (settled / "state.db").exists()
    before = rows(settled)
    assert not moved(settled, url).is_new
    goes_on(settled, "there")
    assert rows(settled) != before
    then = rows(settled)
    assert moved(settled, None).is_new and server_of(settled) is None
    assert rows(settled) == then
    goes_on(settled, "here again")
    assert moved(settled, url).is_new, "what was set aside there is in nobody's way"
    goes_on(settled, "there for good")


class Cut(BaseException):
    """The process is gone."""


def test_cut_off_anywhere_all_rows_are_in_one_place_and_the_same_move_ends_it(
    postgres: PostgresServer, settled: Path
):
    url = postgres.new_database()
    state = open_state(settled)
    give_lineage(state, "a name")
    state.database.close()
    expected = rows(settled)
    for target in (url, None):
        for after in range(200):
            left = [after]

            def die(name: str, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise Cut

            try:
                with failpoints.handled_by(die):
                    moved(settled, target)
            except Cut:
                assert rows(settled) == expected, after
                continue
            break
        assert after > 3 and server_of(settled) == target and rows(settled) == expected


def test_killed_while_it_writes_to_the_server_it_goes_on(postgres: PostgresServer, settled: Path):
    url = postgres.new_database()
    moved(settled, url)
    moved(settled, None)
    expected = rows(settled)
    program = f"""
import os, signal
from pathlib import Path
from loopscope.controller.maintenance.moving import move_database
from loopscope.state.folder import name_database
from loopscope.controller.maintenance import moving
moving.folder.name_database = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
move_database(Path({str(settled)!r}), {url!r}, now=6.0, lineage="x")
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert ended.returncode == -signal.SIGKILL
    assert server_of(settled) is None and rows(settled) == expected
    assert moved(settled, url).is_new and rows(settled) == expected


def test_another_state_on_the_server_is_not_replaced(
    postgres: PostgresServer, settled: Path, tmp_path: Path
):
    url = postgres.new_database()
    other = settled_experiment(tmp_path / "other")
    other.state.database.close()
    move_database(tmp_path / "other", url, now=5.0, lineage="another")
    before = rows(tmp_path / "other")
    with pytest.raises(TerminalFailure, match="holds another or a newer state"):
        moved(settled, url)
    assert rows(tmp_path / "other") == before and server_of(settled) is None


def test_a_server_that_is_not_there_changes_nothing(settled: Path):
    before = rows(settled)
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        moved(settled, "postgresql+psycopg://app@127.0.0.1:1/nothing?connect_timeout=1")
    assert server_of(settled) is None and rows(settled) == before


def test_artifacts_go_into_a_real_bucket_and_back(s3: S3Server, settled: Path):
    url = f"s3://{s3.new_bucket()}/prefix?endpoint={s3.endpoint}"
    assert move_artifacts(settled, url).whole == 6
    rows(settled)
    for folder in (settled / "artifacts").iterdir():
        folder.rename(settled.parent / folder.name)
    assert move_artifacts(settled, None).carried.artifacts == 6
    rows(settled)


def test_a_state_on_a_server_with_a_bucket_is_backed_up_and_restored_to_one_disk(
    postgres: PostgresServer, localbucket: S3Server, settled: Path, tmp_path: Path
):
    moved(settled, postgres.new_database())
    move_artifacts(
        settled, f"s3://{localbucket.new_bucket()}/prefix?endpoint={localbucket.endpoint}"
    )
    state = open_state(settled)
    done = back_up(state, tmp_path / "backup", now=6.0, lineage="x", force=False)
    state.database.close()
    assert done.carried.artifacts == 6
    restore_backup(tmp_path / "disk", tmp_path / "backup", force=False)
    rows(tmp_path / "disk")
    goes_on(tmp_path / "disk", "one disk")

"""Data sets of the hub: which files of which commit a spec asks for, and their local copies.

A revision is resolved once and remembered with the listing of its files in
``<cache>/loopscope/datasets/``; the files lie in the Hugging Face cache. What was read once is read
again without a network, and of a branch the commit that it led to at first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from loopscope.inputs.dataset_card import CARD, splits_of
from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.files import (
    LOCK_TIMEOUT_SECONDS,
    HashMemo,
    default_cache,
    replace_text,
)
from loopscope.inputs.hub import SMALL_FILE_BYTES_MAX, Hub, HubCommit, HubFile
from loopscope.specs.canonical import digest
from loopscope.specs.fields import DATASET_PATTERN
from loopscope.specs.suggest import did_you_mean
from loopscope.specs.texts.source import DatasetAsked, DatasetFile, FoundDataset

BYTES_MAX = 256 * 2**20
"""Most bytes of all files of one set of texts: they are read in one go."""
FILES_MAX = 1000
LISTING_BYTES_MAX = 64 * 2**20
_CONVERTED = ", as those that the hub converted (revision: refs/convert/parquet)"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".tgz")


@dataclass(frozen=True)
class Datasets:
    """Data sets of one hub. An offline ``hub`` leaves what is in the cache."""

    hub: Hub = field(default_factory=Hub)
    cache: Path | None = None

    def find(self, asked: DatasetAsked) -> FoundDataset:
        """Return the files that are asked for, downloaded where there is no copy of them yet.

        Raises ValueError with one sentence for what is wrong or cannot be had now. What is too
        large is refused by the hub's listing, before a byte of it is fetched.
        """
        try:
            return self._find(asked)
        except InputRefused as refused:
            raise ValueError(refused.message) from None
        except ResolutionPending as pending:
            raise ValueError(pending.message) from None

    def cached(self, asked: DatasetAsked) -> FoundDataset | None:
        """Return the files that are asked for if they are all in the cache; asks no network.

        Raises ValueError with one sentence for what is wrong whatever the network says.
        """
        try:
            return replace(self, hub=replace(self.hub, offline=True))._find(asked)
        except InputRefused as refused:
            raise ValueError(refused.message) from None
        except ResolutionPending:
            return None

    def _find(self, asked: DatasetAsked) -> FoundDataset:
        if not re.fullmatch(DATASET_PATTERN, asked.name):
            raise InputRefused(
                "dataset", f"{asked.name[:80]!r} is no data set of the hub; write owner/name"
            )
        at = self._listing(asked)
        names = self._chosen(asked, at)
        _check_sizes(asked, at, names)
        memo = HashMemo()
        files = []
        for name in names:
            path = self._copy(at, name, memo)
            files.append(DatasetFile(name, memo.sha256(path), path))
        return FoundDataset(at.commit, tuple(files))

    def _listing(self, asked: DatasetAsked) -> HubCommit:
        """Return the commit that a revision led to when it was first asked for, and its files."""
        folder = (self.cache or default_cache()) / "loopscope" / "datasets"
        path = folder / f"{digest([asked.name, asked.revision])}.json"
        known = _remembered(path, asked)
        if known is not None:
            return known
        if self.hub.offline:
            raise ResolutionPending("HubOffline", f"{asked.name} at {asked.revision} is not there")
        found = self.hub.commit(asked.name, asked.revision, "revision", "dataset")
        with contextlib.suppress(OSError, Timeout):  # a cache that cannot be written costs a look
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_SECONDS):
                known = _remembered(path, asked)
                if known is not None:
                    return known  # another process was first: both go on with one commit
                record = {"revision": asked.revision, **asdict(found)}
                replace_text(path, json.dumps(record, indent=0))
        return found

    def _chosen(self, asked: DatasetAsked, at: HubCommit) -> list[str]:
        """Return the names of the files that are asked for, sorted. Raises InputRefused."""
        if asked.data_files is not None:
            patterns: Sequence[str] = [asked.data_files]
            wanted = f"that {asked.data_files!r} stands for"
        else:
            patterns = self._patterns_of_split(asked, at)
            wanted = f"of the split {asked.split!r}"
        found = sorted(name for name in at.files if any(_matches(name, p) for p in patterns))
        if not found:
            near = did_you_mean(asked.data_files or "", list(at.files)) if at.files else ""
            raise InputRefused(
                "dataFiles", f"{asked.name} at {asked.revision} has no file {wanted}{near}"
            )
        for name in found:
            if name.endswith(".py"):
                what = "a script, and no code of a data set is run; name the files with its rows"
            elif name.lower().endswith(_PACKED):
                what = f"packed; name files that are not{_CONVERTED}"
            else:
                continue
            raise InputRefused("dataFiles", f"{asked.name}/{name} is {what}")
        return found

    def _patterns_of_split(self, asked: DatasetAsked, at: HubCommit) -> Sequence[str]:
        script = f"{asked.name.rpartition('/')[2]}.py"
        if script in at.files:
            raise InputRefused(
                "split",
                f"the splits of {asked.name} are made by a script ({script}), and no code of a "
                f"data set is run; name its files with dataFiles{_CONVERTED}",
            )
        card = self._copy(at, CARD, HashMemo()) if CARD in at.files else None
        try:
            return splits_of(card, at.files, asked.config, asked.split or "")
        except ValueError as error:
            raise InputRefused("split", f"{asked.name} at {asked.revision} {error}") from None

    def _copy(self, at: HubCommit, name: str, memo: HashMemo) -> Path:
        """Return a local copy of a file that is as the hub's listing says."""
        path = self.hub.downloaded(at, name)
        if path is not None and _is_as_listed(path, at.files[name], memo):
            return path
        if self.hub.offline:
            raise ResolutionPending("HubOffline", f"{at.repo}/{name} is not in the cache")
        limit = SMALL_FILE_BYTES_MAX if name == CARD else BYTES_MAX
        path = self.hub.download(at, name, "dataFiles", limit, afresh=path is not None)
        if not _is_as_listed(path, at.files[name], memo):
            raise ResolutionPending(
                "HubUnreachable",
                f"{at.repo}/{name} came as another file than the hub lists; try again",
            )
        return path


def _remembered(path: Path, asked: DatasetAsked) -> HubCommit | None:
    try:
        with path.open("rb") as stream:
            record = json.loads(stream.read(LISTING_BYTES_MAX))
        if (record["repo"], record["revision"]) != (asked.name, asked.revision):
            return None
        files = {name: HubFile(**one) for name, one in record["files"].items()}
        return HubCommit(record["repo"], record["commit"], files, "dataset")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _check_sizes(asked: DatasetAsked, at: HubCommit, names: Sequence[str]) -> None:
    if len(names) > FILES_MAX:
        raise InputRefused("dataFiles", f"{len(names):,} files of {asked.name} are asked for, at "
                           f"most {FILES_MAX:,} are read; name fewer (dataFiles)")  # fmt: skip
    sizes = {name: at.files[name].size for name in names}
    total, largest = sum(sizes.values()), max(sizes, key=lambda name: sizes[name])
    if total > BYTES_MAX:
        found = (
            f"{asked.name}/{largest} has {total:,} bytes"
            if len(names) == 1
            else f"{len(names):,} files of {asked.name} have {total:,} bytes together"
        )
        raise InputRefused("dataFiles", f"{found}, at most {BYTES_MAX:,} are read; name smaller or "
                           "fewer files (dataFiles)")  # fmt: skip


def _is_as_listed(path: Path, listed: HubFile, memo: HashMemo) -> bool:
    try:
        if path.stat().st_size != listed.size:
            return False
        if listed.sha256 is not None:
            return memo.sha256(path) == listed.sha256
        head = f"blob {listed.size}\0".encode()
        return hashlib.sha1(head + path.read_bytes()).hexdigest() == listed.blob  # as git names it
    except OSError:
        return False


def _matches(name: str, pattern: str) -> bool:
    """Whether a path fits a pattern: ``*`` within a name, ``**`` for any number of folders."""
    parts, reached = PurePosixPath(name).parts, {0}
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            reached = set(range(min(reached), len(parts) + 1))
        else:
            reached = {i + 1 for i in reached if i < len(parts) and fnmatchcase(parts[i], part)}
        if not reached:
            return False
    return len(parts) in reached

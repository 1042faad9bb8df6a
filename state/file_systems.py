"""Where a path lies: SQLite's locks and shared memory need a local file system."""

from __future__ import annotations

import os
import re
from pathlib import Path

from loopscope.state.failures import TerminalFailure

MOUNTS = Path("/proc/mounts")

_SERVED = """
nfs nfs3 nfs4 cifs smb2 smb3 smbfs ncpfs afs coda 9p davfs ceph lustre gpfs beegfs beegfs_nodev
fhgfs orangefs pvfs2 panfs glusterfs
"""
_ONE_DISK_AND_SEVERAL_MACHINES = "gfs gfs2 ocfs2"
_FOLDERS_OF_A_HOST = "vboxsf prl_fs vmhgfs drvfs"
_IN_USER_SPACE = """
sshfs nfs smbnetfs cifs davfs2 curlftpfs gvfsd-fuse kio-fuse vmhgfs-fuse osxfs grpcfuse glusterfs
ceph ceph-fuse mfs lizardfs seaweedfs juicefs s3fs goofys rclone gcsfuse blobfuse blobfuse2
mount-s3 dbfs
"""
NETWORK_FILE_SYSTEMS = frozenset(
    [
        *_SERVED.split(),
        *_ONE_DISK_AND_SEVERAL_MACHINES.split(),
        *_FOLDERS_OF_A_HOST.split(),
        *(f"fuse.{name}" for name in _IN_USER_SPACE.split()),
    ]
)


def refuse_network_file_system(path: Path, mounts: Path = MOUNTS) -> None:
    """Raise TerminalFailure when ``path``, links followed, lies on a network file system.

    ``mounts`` is a table in the format of ``/proc/mounts``; where there is none, nothing is
    known and nothing refused.
    """
    try:
        table = os.fsdecode(mounts.read_bytes())
    except OSError:
        return
    kind = _file_system_of(os.path.realpath(path), table)
    if kind in NETWORK_FILE_SYSTEMS:
        raise TerminalFailure(
            "NetworkFileSystem",
            f"{path} is on {kind}, where SQLite locks are not safe; use --state on a local disk",
        )


def _file_system_of(real: str, table: str) -> str:
    """Return the type of the deepest mount over ``real``; of two at one place, the later one."""
    best, kind = "", ""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = _unescaped(fields[1])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _unescaped(point: str) -> str:
    r"""Undo the table's octal escapes: a space in a mount point is written ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)

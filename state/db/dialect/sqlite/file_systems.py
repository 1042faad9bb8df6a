"""The file system of a path: SQLite's locks and shared memory need a local one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from loopscope.state.failures import TerminalFailure

MOUNTS = Path("/proc/mounts")
LOCAL_VARIABLE = "LOOPSCOPE_LOCAL_FILE_SYSTEMS"
"""Types, separated by commas, that the user vouches for."""

_SERVED = """
nfs nfs3 nfs4 cifs smb smb2 smb3 smbfs ncp ncpfs afs openafs auristorfs coda 9p davfs ceph lustre
lustre_lite gpfs mmfs beegfs beegfs_nodev fhgfs orangefs pvfs2 panfs glusterfs wekafs cvfs quobyte
moosefs
"""
_ONE_DISK_AND_SEVERAL_MACHINES = "gfs gfs2 ocfs2 acfs"
_FOLDERS_OF_A_HOST = """
virtiofs virtio_fs fakeowner vboxsf prl_fs prl_fsd vmhgfs hgfs drvfs hostfs osxfs grpcfuse
"""
_IN_USER_SPACE = """
sshfs nfs smbnetfs cifs davfs davfs2 webdavfs curlftpfs gvfsd-fuse kio-fuse vmhgfs-fuse hgfs osxfs
grpcfuse prl_fsd virtiofs glusterfs ceph ceph-fuse mfs moosefs lizardfs saunafs seaweedfs weed
juicefs s3fs s3ql goofys geesefs rclone gcsfuse blobfuse blobfuse2 mount-s3 mountpoint-s3 dbfs
objectivefs cunofs daos dfuse alluxio-fuse fuse_dfs hdfs cvmfs2 quobyte xtreemfs onedriver
google-drive-ocamlfuse ipfs shfs
"""
NETWORK_FILE_SYSTEMS = frozenset(
    [
        *_SERVED.split(),
        *_ONE_DISK_AND_SEVERAL_MACHINES.split(),
        *_FOLDERS_OF_A_HOST.split(),
        *(f"fuse.{name}" for name in _IN_USER_SPACE.split()),
    ]
)
_ON_A_DISK = """
ext2 ext3 ext4 xfs btrfs zfs bcachefs f2fs jfs reiserfs reiser4 nilfs2 vxfs ntfs ntfs3 fuseblk vfat
msdos exfat hfs hfsplus apfs ufs udf iso9660 squashfs erofs ubifs jffs2 minix ecryptfs
"""
_IN_MEMORY_OR_IN_LAYERS = """
tmpfs ramfs rootfs devtmpfs overlay overlayfs aufs unionfs shiftfs simfs wslfs lxfs autofs
"""
_LOCAL_IN_USER_SPACE = """
fuse-overlayfs bindfs mergerfs unionfs unionfs-fuse gocryptfs encfs cryfs securefs ntfs-3g exfat
exfat-fuse ext2 ext4 apfs zfs squashfuse
"""
LOCAL_FILE_SYSTEMS = frozenset(
    [
        *_ON_A_DISK.split(),
        *_IN_MEMORY_OR_IN_LAYERS.split(),
        *(f"fuse.{name}" for name in _LOCAL_IN_USER_SPACE.split()),
    ]
)


def refuse_network_file_system(path: Path, mounts: Path = MOUNTS) -> None:
    """Raise TerminalFailure when ``path``, links followed, does not lie on a local file system.

    Also when it is not known whether it does: a database that is destroyed there is destroyed
    without an error. ``mounts`` is a table in the format of ``/proc/mounts``; where there is none,
    nothing is known and nothing refused.
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
    vouched_for = {name.strip() for name in os.environ.get(LOCAL_VARIABLE, "").split(",")}
    if kind and kind not in LOCAL_FILE_SYSTEMS | vouched_for:
        raise TerminalFailure(
            "UnknownFileSystem",
            f"{path} is on {kind}, and whether SQLite is safe there is not known; use --state on "
            "another disk. If this is a disk of this machine, which no other machine or host "
            f"writes to: {LOCAL_VARIABLE}={kind}",
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

"""What is wrong with a server, or soon will be, and the command that mends it.

Each check looks at the evidence and yields findings; none of them asks a server or reads a file. What the server did
not say, an older one for example, is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from kvzmq import __version__
from kvzmq.bench.disk import KEEPS_NOTHING, P99_S_MAX
from kvzmq.units import count, duration, size

SLOWER_TIMES = 5
SLOW_S_MIN = 0.02
SYNCS_MIN = 50
"""A disk is slow now if its p99 is SLOWER_TIMES that of the server's first syncs and SLOW_S_MIN at least, of SYNCS_MIN
syncs within two minutes."""

FREE_SHARE_MIN = 0.1
COPIES_OF_TABLE = 2
"""How much room there has to be: of the disk, and for further copies of log and checkpoint; a compaction writes one."""

ETCD_SHARE_MAX = 0.75
"""How much of etcd's quota may be in use; the server warns from there on as well."""

ETCD_SILENT_S_MAX = 5.0
"""How long a member of etcd may answer nothing: while it defragments a small file, for example."""

ETCD_BEHIND_MAX = 1000
"""How many entries a member may lack of those that another one had applied a second or more before."""

ETCD_USED_SHARE_MIN = 0.5
"""How much of a member's file has to be in use, where the file is longer than ETCD_SHARE_MAX of the quota."""

ETCD_STATUS = "etcdctl endpoint status --cluster --write-out table"

UNREAD_BYTES_MAX = 1 << 20
"""What a client may have left unread: a page or two that it is just reading."""

LIMIT_SHARE_MAX = 0.8
"""How much of a limit may be used."""

CLOCK_S_MAX = 5.0
"""How far the server's clock and ours may be apart, and how far the table may be ahead."""

_NO_JOURNAL = ("ext2", "vfat", "exfat", "msdos", "minix")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
_NAMED_MAX = 5


class Finding(msgspec.Struct):
    """Something that is wrong, in a sentence, and what to do about it."""

    name: str
    text: str
    command: str


class Evidence(msgspec.Struct):
    """What the checks look at.

    url          the server's
    stats        what it says of itself; None if it was not asked or did not answer
    silence      why it did not answer, or None
    refusal      why it may not be asked, or None
    clients      what it says of its clients
    asked_s      when it was asked, by the clock of this machine, since 1970
    data         the directory of the table, or None if its files are not to be looked at
    kind         that directory's file system, and its mount options
    mode         the directory's permissions
    has_journal  whether its file system has a journal; None if that cannot be told
    damage       what is not as it was written in the files; not looked for if a server has them open
    """

    url: str = ""
    stats: Mapping[str, Any] | None = None
    silence: str | None = None
    refusal: str | None = None
    clients: Sequence[Mapping[str, Any]] = ()
    asked_s: float = 0.0
    data: str | None = None
    kind: tuple[str, str] = ("unknown", "")
    mode: int = 0o700
    has_journal: bool | None = None
    damage: Sequence[str] = ()


def diagnose(evidence: Evidence) -> list[Finding]:
    """Return all findings, those first that hurt now."""
    return [found for check in CHECKS for found in check(evidence)]


# ---- the checks


def _silent(evidence: Evidence) -> Iterator[Finding]:
    if evidence.silence is not None:
        yield Finding("silent", f"{evidence.url} does not answer: {evidence.silence}", "kvzmq ping --explain")


def _refused(evidence: Evidence) -> Iterator[Finding]:
    if evidence.refusal is not None:
        yield Finding(
            "not_allowed",
            f"{evidence.url} was not looked at: {evidence.refusal}",
            "kvzmq --curve-key FILE doctor, with the key of a client that has the right admin",
        )


def _cannot_write(evidence: Evidence) -> Iterator[Finding]:
    trouble = _of(evidence, "storage_trouble")
    if trouble:
        yield Finding(
            "cannot_write",
            f"changes are refused, as the latest one could not be written: {trouble.removeprefix('not applied: ')}",
            ETCD_STATUS if _of(evidence, "log_shared") else "df -h; make room on the disk: nothing has to be restarted",
        )


def _damaged(evidence: Evidence) -> Iterator[Finding]:
    for line in evidence.damage[:_NAMED_MAX]:
        yield Finding("damaged", f"a file is not what was written: {line}", f"kvzmq check --repair {evidence.data}")


def _compaction(evidence: Evidence) -> Iterator[Finding]:
    trouble = _of(evidence, "compaction_trouble")
    if trouble:
        log_bytes = _of(evidence, "log_bytes") or 0
        yield Finding(
            "compaction_fails",
            f"the log, {size(log_bytes)}, cannot be compacted and grows: {trouble}",
            "make what it says possible; it is tried again by itself",
        )


def _disk_slow(evidence: Evidence) -> Iterator[Finding]:
    disk = _of(evidence, "disk") or {}
    recent, first = disk.get("sync_recent") or {}, disk.get("sync_first") or {}
    p99_s = recent.get("p99_s", 0.0)
    if recent.get("count", 0) < SYNCS_MIN:
        return
    if first and p99_s >= SLOW_S_MIN and p99_s > SLOWER_TIMES * first["p99_s"]:
        yield Finding(
            "disk_slow",
            f"the disk has become slow: 1 of 100 syncs takes {duration(p99_s)} or more, and took "
            f"{duration(first['p99_s'])} when the server had started",
            "iostat -x 1 shows what else uses it; kvzmq bench --disk DIR measures it",
        )
    elif p99_s > P99_S_MAX:
        yield Finding(
            "disk_slow",
            f"the disk is slow: 1 of 100 syncs takes {duration(p99_s)} or more, and every change waits for one",
            "kvzmq bench --disk DIR measures it, and others to move to",
        )


def _disk_filling(evidence: Evidence) -> Iterator[Finding]:
    total, free = _of(evidence, "disk_bytes"), _of(evidence, "disk_free_bytes")
    if not total or free is None:
        return
    needed = COPIES_OF_TABLE * ((_of(evidence, "checkpoint_bytes") or 0) + (_of(evidence, "log_bytes") or 0))
    if free < needed or free < FREE_SHARE_MIN * total:
        yield Finding(
            "disk_filling",
            f"the disk is filling: {size(free)} of {size(total)} are left; log and checkpoint need up to "
            f"{size(needed)} more while they are compacted",
            "df -h; du -x -h / | sort -h | tail shows what fills it",
        )


def _etcd(evidence: Evidence) -> Iterator[Finding]:
    """The room and the reach of the etcd that has the log; a server with its log on a disk does not tell any."""
    used, quota = _of(evidence, "etcd_in_use_bytes"), _of(evidence, "etcd_quota_bytes")
    trouble = _of(evidence, "etcd_trouble")
    if trouble:
        yield Finding("etcd_silent", f"the server gets no answer from etcd: {trouble}", "etcdctl endpoint status")
    if _of(evidence, "etcd_no_space"):
        yield Finding(
            "etcd_full",
            f"etcd's quota of {size(quota or 0)} is used up, and it takes no change; servers free what they can",
            "etcdctl alarm list; if it stays: a larger --quota-backend-bytes, then etcdctl alarm disarm",
        )
    elif used and quota and used > ETCD_SHARE_MAX * quota:
        yield Finding(
            "etcd_filling",
            f"{size(used)} of etcd's quota of {size(quota)} are in use; a checkpoint, "
            f"{size(_of(evidence, 'checkpoint_bytes') or 0)}, is written beside the one before it, and when the quota "
            "is used up no change is possible",
            "start etcd's members with a larger --quota-backend-bytes, 8 GiB at most; or remove rows",
        )
    elif _of(evidence, "etcd_room_bytes") == 0:
        yield Finding(
            "etcd_no_room",
            f"etcd has room for the next checkpoint, {size(_of(evidence, 'etcd_reserved_bytes') or 0)}, and not for "
            "changes beside it; servers write it and make room",
            "if it stays: start etcd's members with a larger --quota-backend-bytes, and say it with --etcd-quota",
        )


def _etcd_members(evidence: Evidence) -> Iterator[Finding]:
    """Each member of the cluster, as it has told; where none answers, `_etcd` has said so."""
    members: Mapping[str, Mapping[str, Any]] = _of(evidence, "etcd_members") or {}
    alive = {address: one for address, one in members.items() if not one.get("silent_s")}
    for address, one in members.items():
        if one.get("silent_s", 0.0) > ETCD_SILENT_S_MAX:
            yield Finding(
                "etcd_member_down",
                f"etcd's member {address} has not answered for {duration(one['silent_s'])}; {len(alive)} of "
                f"{len(members)} do, and etcd needs {len(members) // 2 + 1}",
                "systemctl status etcd, on its machine; lost for good: etcdctl member remove, then member add",
            )
    leaderless = [address for address, one in alive.items() if one.get("has_leader") is False]
    if leaderless:
        is_all = len(leaderless) == len(alive)
        who = "no member of etcd that answers knows a" if is_all else f"etcd's member {leaderless[0]} knows no"
        yield Finding(
            "etcd_no_leader",
            f"{who} leader: without one no change and no linearizable read is possible",
            f"{ETCD_STATUS}; start the members that are down, and look at the network between them",
        )
    if _of(evidence, "etcd_corrupt"):
        yield Finding(
            "etcd_corrupt",
            "etcd has raised the alarm CORRUPT: a member's data differ from those of others, and no change is taken",
            "etcdctl alarm list names the member: member remove, member add, start it empty; then etcdctl alarm disarm",
        )
    for address, one in alive.items():
        if one.get("behind", 0) > ETCD_BEHIND_MAX:
            yield Finding(
                "etcd_member_behind",
                f"etcd's member {address} is {one['behind']:,} entries behind the others",
                "iostat -x 1, on its machine: a slow disk; or the network to it",
            )
    yield from _etcd_files(alive, _of(evidence, "etcd_quota_bytes") or 0)


def _etcd_files(members: Mapping[str, Mapping[str, Any]], quota: int) -> Iterator[Finding]:
    for address, one in members.items():
        length, used = one.get("file_bytes", 0), one.get("in_use_bytes", 0)
        if quota and length > ETCD_SHARE_MAX * quota and used < ETCD_USED_SHARE_MIN * length:
            yield Finding(
                "etcd_fragmented",
                f"the file of etcd's member {address} is {size(length)} long, and the quota of {size(quota)} counts "
                f"that, though {size(used)} of it are in use",
                f"etcdctl defrag --endpoints {address}; one member at a time: it answers nothing meanwhile",
            )
    versions = sorted({one["version"] for one in members.values() if one.get("version")})
    if len(versions) > 1:
        yield Finding(
            "etcd_versions",
            f"etcd's members run different versions: {', '.join(versions)}",
            "finish the upgrade, one member after the other; kvzmq stats shows which runs what",
        )


def _unread(evidence: Evidence) -> Iterator[Finding]:
    deaf = [one for one in evidence.clients if (one["unread_bytes"] or 0) > UNREAD_BYTES_MAX or one["replies_dropped"]]
    deaf.sort(key=lambda one: -(one["unread_bytes"] or 0))
    for one in deaf[:_NAMED_MAX]:
        dropped = f", {count(one['replies_dropped'], 'reply').replace('replys', 'replies')} dropped"
        yield Finding(
            "client_does_not_read",
            f"{one['name']} at {one['address'] or 'an address that is not known'} does not read: "
            f"{size(one['unread_bytes'] or 0)} unread{dropped if one['replies_dropped'] else ''}",
            f"kvzmq clients kick {one['name']}",
        )


def _memory(evidence: Evidence) -> Iterator[Finding]:
    resident = _of(evidence, "resident_bytes")
    limit, available = _of(evidence, "memory_limit_bytes"), _of(evidence, "memory_available_bytes")
    if not resident:
        return
    rows = f"{count(_of(evidence, 'keys') or 0, 'row')} hold {size(_of(evidence, 'row_bytes') or 0)}"
    if limit and resident > LIMIT_SHARE_MAX * limit:
        yield Finding(
            "memory",
            f"the server uses {size(resident)} of the {size(limit)} it may: {rows}",
            "raise MemoryMax in its unit and restart it, or remove rows",
        )
    if available is not None and available < resident:
        yield Finding(
            "memory",
            f"the machine has {size(available)} of memory left, and a compaction needs about as much again as the "
            f"server uses, {size(resident)}: {rows}",
            "free -h; give the machine more memory, or move the table to another one",
        )


def _descriptors(evidence: Evidence) -> Iterator[Finding]:
    used, limit = _of(evidence, "descriptors"), _of(evidence, "descriptors_max")
    if used and limit and used > LIMIT_SHARE_MAX * limit:
        yield Finding(
            "descriptors",
            f"{used:,} of {limit:,} descriptors are open, for {count(_of(evidence, 'clients') or 0, 'connection')}: at "
            "the limit new clients hang",
            "raise LimitNOFILE in its unit and restart it; kvzmq clients shows who is connected",
        )


def _clock(evidence: Evidence) -> Iterator[Finding]:
    clock_s, table_s = _of(evidence, "clock_s"), _of(evidence, "table_time_s")
    if not clock_s:
        return
    apart_s = clock_s - evidence.asked_s
    if abs(apart_s) > CLOCK_S_MAX:
        yield Finding(
            "clock",
            f"the server's clock is {duration(abs(apart_s))} {'ahead of' if apart_s > 0 else 'behind'} this machine's",
            "timedatectl; chronyc tracking, on both machines",
        )
    if table_s and table_s - clock_s > CLOCK_S_MAX:
        yield Finding(
            "clock",
            f"the server's clock was turned back: the table is {duration(table_s - clock_s)} ahead of it, and until it "
            "has caught up no row expires",
            "timedatectl; chronyc tracking",
        )


def _file_system(evidence: Evidence) -> Iterator[Finding]:
    if evidence.data is None:
        return
    kind, options = evidence.kind
    move = f"stop the server, move {evidence.data} to ext4 or xfs on a disk of this machine, start it"
    if kind in KEEPS_NOTHING:
        yield Finding("file_system", f"{evidence.data} is on {kind}: a restart of the machine loses the table", move)
    elif kind in _NETWORK:
        text = (
            f"{evidence.data} is on {kind}: whether a sync keeps its promise is up to another machine; locks may fail"
        )
        yield Finding("file_system", text, move)
    elif kind in _NO_JOURNAL or evidence.has_journal is False:
        text = (
            f"{evidence.data} is on {kind} without a journal: after a power cut the file system itself may be damaged"
        )
        yield Finding("file_system", text, "tune2fs -O has_journal DEVICE, unmounted" if kind == "ext4" else move)
    if re.search(r"\b(nobarrier|barrier=0)\b", options):
        text = f"the disk of {evidence.data} is mounted without barriers: a sync does not wait for the disk"
        yield Finding("file_system", text, f"mount -o remount,barrier=1 $(stat -c %m {evidence.data})")


def _permissions(evidence: Evidence) -> Iterator[Finding]:
    if evidence.data is not None and evidence.mode & 0o077:
        text = f"others than the owner may look into {evidence.data} (mode {evidence.mode:o})"
        yield Finding("permissions", text, f"chmod 700 {evidence.data}")


def _old_version(evidence: Evidence) -> Iterator[Finding]:
    version = _of(evidence, "version")
    if version and _numbers(version) < _numbers(__version__):
        text = f"the server is kvzmq {version}, and {__version__} is installed here"
        yield Finding("old_version", text, "install it there, and restart the server: CHANGELOG.md says what changes")


CHECKS: Sequence[Callable[[Evidence], Iterator[Finding]]] = (
    _silent, _refused, _cannot_write, _damaged, _compaction, _disk_slow, _disk_filling, _etcd, _etcd_members, _unread,
    _memory, _descriptors, _clock, _file_system, _permissions, _old_version,
)  # fmt: skip
"""All checks: first those whose findings hurt now."""


def _of(evidence: Evidence, name: str) -> Any:
    return None if evidence.stats is None else evidence.stats.get(name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))

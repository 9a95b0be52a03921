"""Session directories and what is known of them: where they are, which processes they have, which of them live.

<temp root>/session_<date>_<time>_<us>_<pid>/ holds the logs of a cluster's processes on this machine, and their
sockets: those of the first node in `sockets/`, those of every further one in a `node_*/sockets/`. Each process has a
record in `processes/`, which tells later commands where it is, without a search by name: a record counts only while the
very process runs that it was written for, so that neither a reused process id nor a restart of the machine misleads.
While anything of a session runs, its `lock` is held, and nobody deletes the directory; that also counts in other
containers and on other hosts that share it. A temp root that was given to `ray start` is linked in the one of the
environment (`temp_dir_*`), as long as something runs there.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ray._runtime import private_file
from ray.exceptions import RaySystemError

_KEEP_SESSIONS = 5  # newest directories of ended sessions, for their logs
_CURRENT = "ray_current_cluster"
_LATEST = "session_latest"
_LINK = "temp_dir_"
_RECORDS = "processes"
_LOCK = "lock"

GCS, RAYLET = "gcs_server", "raylet"


def temp_root(temp_dir: str | None = None) -> Path:
    """Where session directories are: `temp_dir`, else <RAY_TMPDIR or /tmp>/ray."""
    return Path(os.path.abspath(temp_dir or os.path.join(os.environ.get("RAY_TMPDIR") or "/tmp", "ray")))


# --- process records


@dataclass(frozen=True)
class ProcessRecord:
    """One process of a session on this machine.

    Attributes:
        kind: GCS or RAYLET.
        pid, identity: which process; `identity` tells it from a later one with the same id.
        session_dir, node_dir: its directories; sockets are in <node_dir>/sockets.
        gcs_address: of the cluster, as its nodes use it.
        addresses: all addresses by which the GCS can be reached from here (GCS only).
        owned: a driver or a test started it and ends it; nobody else should.
        head: the head node's.
        node_id: hex (RAYLET only).
        network: the network namespace that the addresses belong to.
        auth_token_file, auth_mode: how the cluster authenticates.
        python: version of Python of its workers.
        replaceable: another head may go on from what this GCS stores (GCS only).
        started: seconds since the epoch.
    """

    kind: str
    pid: int
    session_dir: str
    identity: str = ""
    node_dir: str = ""
    gcs_address: str = ""
    addresses: tuple[str, ...] = ()
    owned: bool = False
    head: bool = False
    node_id: str = ""
    network: str = ""
    auth_token_file: str = ""
    auth_mode: str = ""
    python: str = ""
    replaceable: bool = False
    started: float = 0.0

    @property
    def path(self) -> Path:
        """Its file."""
        return Path(self.session_dir) / _RECORDS / f"{self.kind}-{self.pid}.json"

    def write(self) -> ProcessRecord:
        """Writes it, with the identity of the process as it is now; the full record."""
        full = replace(self, identity=_identity(self.pid), network=network_namespace(), started=_now())
        full.path.parent.mkdir(mode=0o700, exist_ok=True)
        private_file.write_text(full.path, json.dumps(asdict(full)))
        return full

    def remove(self) -> None:
        """Deletes its file. Idempotent."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self.identity != "" and _identity(self.pid) == self.identity

    def pidfd(self) -> int | None:
        """A descriptor of the very process, for signals and waiting, which the caller closes; None after its end."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.lives:  # looked at after the descriptor was opened: what lives now is what it refers to
            return fd
        os.close(fd)
        return None


def _now() -> float:
    return datetime.datetime.now().timestamp()


def _identity(pid: int) -> str:
    """What no other process on this machine, before or after, has in common with that one; "" when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # the id is one of this namespace
    except (OSError, IndexError):
        return ""
    return "" if stat[0] in "ZX" else f"{boot} {namespace} {stat[19]}"


def network_namespace() -> str:
    """Of this process: addresses mean the same within one."""
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:
        return ""


_FIELDS = {field.name for field in fields(ProcessRecord)}


def _read_record(path: Path) -> ProcessRecord | None:
    try:
        got = json.loads(path.read_text())
        got["addresses"] = tuple(got["addresses"])
        return ProcessRecord(**{name: value for name, value in got.items() if name in _FIELDS})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # half deleted, or of another version


def records_of(session_dir: Path) -> list[ProcessRecord]:
    """The processes of one session that run."""
    found = [_read_record(path) for path in (session_dir / _RECORDS).glob("*.json")]
    return [record for record in found if record is not None and record.lives]


def live_records(root: Path) -> list[ProcessRecord]:
    """Processes that run, of all sessions of this user below `root` and the folders linked there, the newest first."""
    places = [root, *(target for _, target in _links(root))]
    found = [record for place in places for directory in _own_sessions(place) for record in records_of(directory)]
    return sorted(found, key=lambda record: -record.started)


def _own_sessions(root: Path) -> Iterator[Path]:
    for path in root.glob("session_*_*"):
        with contextlib.suppress(OSError):
            if not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.getuid():
                yield path


# --- the address file


def write_current(root: Path, address: str) -> None:
    """Makes `address` the cluster that drivers of this user find first.

    Where sessions are by default, a folder that was given for this one is linked: who does not name it finds it, too.
    """
    default = temp_root()
    with contextlib.suppress(OSError):  # shared with other users: whoever owns the file keeps it
        private_file.write_text(root / _CURRENT, address + "\n")
    if root != default:
        with contextlib.suppress(OSError):
            _make_root(default)
            private_file.write_text(default / _CURRENT, address + "\n")
            if root not in (target for _, target in _links(default)):
                (default / f"{_LINK}{datetime.datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}").symlink_to(root)


def _links(root: Path) -> Iterator[tuple[Path, Path]]:
    """Of this user, and where they lead."""
    for link in root.glob(f"{_LINK}*"):
        with contextlib.suppress(OSError):
            if link.lstat().st_uid == os.getuid():
                yield link, Path(os.readlink(link))


def forget_current(root: Path) -> None:
    """Deletes the address files of this user that name no cluster with a process here, and links that lead to none."""
    default = temp_root()
    for place in dict.fromkeys((root, default)):
        with contextlib.suppress(OSError):
            path = place / _CURRENT
            if path.stat().st_uid == os.getuid():
                address = path.read_text().strip()
                if not any(record.gcs_address == address for record in live_records(place)):
                    path.unlink()
    for link, target in _links(default):
        if not live_records(target):
            link.unlink(missing_ok=True)


def find_running(temp_dir: str | None = None, *, owned: bool = True) -> str | None:
    """Address of a cluster of this user that lives on this machine, or None.

    The one that the address file names goes first, then the newest of those that `ray start` made, then, if `owned`,
    the newest of those that belong to a driver.
    """
    root = temp_root(temp_dir)
    records = [r for r in live_records(root) if r.network == network_namespace()]
    started = [r.gcs_address for r in records if not r.owned]
    path = root / _CURRENT
    with contextlib.suppress(OSError):
        current = path.read_text().strip()
        if current in started and path.stat().st_uid == os.getuid():
            return current
    mine = [r.gcs_address for r in records if r.owned and r.kind == GCS] if owned else []
    return next(iter(started + mine), None)


# --- the directories


def make_session_dir(root: Path) -> Path:
    """A new session's directory. Raises RaySystemError where there is no place for it."""
    try:
        _make_root(root)
        while True:
            session_dir = root / f"session_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
            try:
                session_dir.mkdir(mode=0o700)
                break
            except FileExistsError:
                continue
        _fill(session_dir)
    except OSError as error:
        raise _no_place(root, error) from error
    _point_latest(root, session_dir)
    return session_dir


@contextlib.contextmanager
def joined(root: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """The directory of a session that began elsewhere, made if need be, and a directory in it for one more node.

    It is held for the length of the block: what shall run in it on its own must hold it, too, before that ends, or
    find out for itself that it has been deleted (as gcs_server and raylet do).

    Raises:
        RaySystemError: there is no place for files.
    """
    session_dir = root / name
    with contextlib.ExitStack() as stack:
        try:
            _make_root(root)
            while True:
                if not session_dir.is_dir():
                    _appear(session_dir)
                if session_dir.is_symlink() or session_dir.stat().st_uid != os.getuid():
                    raise PermissionError(errno.EPERM, f"{session_dir} belongs to another user")
                try:
                    stack.enter_context(held(session_dir))
                    break
                except FileNotFoundError:  # it was an old one of that name, and is deleted just now
                    continue
            node_dir = Path(tempfile.mkdtemp(prefix="node_", dir=session_dir))
            (node_dir / "sockets").mkdir(mode=0o700)
        except OSError as error:
            raise _no_place(root, error) from error
        yield session_dir, node_dir


def _appear(session_dir: Path) -> None:
    """Makes it, with all that is in it at first, unless another node comes first."""
    fresh = Path(tempfile.mkdtemp(prefix=".session_", dir=session_dir.parent))
    try:
        _fill(fresh)
        fresh.rename(session_dir)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if not isinstance(error, OSError) or not session_dir.is_dir():
            raise
    else:
        _point_latest(session_dir.parent, session_dir)


def _open_lock(session_dir: Path) -> int:
    return os.open(session_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def held(session_dir: Path) -> Iterator[None]:
    """Keeps the directory from being taken for that of an ended session; its gcs_server and raylets do the same.

    Raises:
        FileNotFoundError: it has been deleted just now.
    """
    path = session_dir / _LOCK
    fd = _open_lock(session_dir)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: `_alone` says no there
            fcntl.flock(fd, fcntl.LOCK_SH)
        if not os.path.samestat(path.stat(), os.fstat(fd)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alone(session_dir: Path) -> Iterator[bool]:
    """Whether nobody holds the directory; nobody can as long as this lasts."""
    try:
        fd = _open_lock(session_dir)  # made if it is missing: whoever joins must find it taken
    except OSError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except OSError:  # somebody has it, or there are no locks that could tell
        alone = False
    try:
        yield alone
    finally:
        os.close(fd)


def _no_place(root: Path, error: OSError) -> RaySystemError:
    return RaySystemError(
        f"Cannot make a session directory in {root}: {error.strerror or error}. "
        "Set RAY_TMPDIR to a folder that can be written to."
    )


def _make_root(root: Path) -> None:
    if root != temp_root():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # another user came first
            root.chmod(0o1777)  # for every user, like /tmp, whatever the umask says; each can only touch what is theirs


def _fill(session_dir: Path) -> None:
    for name in ("sockets", "logs", _RECORDS):
        (session_dir / name).mkdir(mode=0o700, exist_ok=True)
    os.close(_open_lock(session_dir))


def _point_latest(root: Path, session_dir: Path) -> None:
    latest = root / f".{_LATEST}.{os.getpid()}"
    with contextlib.suppress(OSError):  # shared with other users: whoever owns the link keeps it
        latest.unlink(missing_ok=True)
        latest.symlink_to(session_dir.name)
        latest.replace(root / _LATEST)


def _owner_pid(session_dir: Path) -> int | None:
    last = session_dir.name.rpartition("_")[2]
    return int(last) if last.isdigit() else None


def reap_old_sessions(root: Path) -> None:
    """Deletes directories of sessions that have ended, all but the newest few."""
    ended = 0
    for path in sorted(_own_sessions(root), reverse=True):
        pid = _owner_pid(path)
        if pid is None or os.path.exists(f"/proc/{pid}") or records_of(path):
            continue
        with _alone(path) as alone:
            if not alone:
                continue
            ended += 1
            if ended > _KEEP_SESSIONS:
                shutil.rmtree(path, ignore_errors=True)
                continue
            # Kept for its logs, not for the objects that a crashed node had spilled.
            for spilled in path.glob("ray_spilled_objects_*"):
                shutil.rmtree(spilled, ignore_errors=True)


def send_signal(pidfd: int, number: signal.Signals) -> None:
    """Signals the process; nothing happens if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)

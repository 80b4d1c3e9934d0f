"""Claims on folders: one program at a time writes into a folder.

A claim is a file `lock.json` in the folder. It names the process that writes there: its
host, its number, the time at which it started, and since when it writes. The file
appears whole, by a hard link, which one process alone can make. At the end the process
deletes the file.

A process that was killed leaves the file behind. Another process takes such a claim
over: at once if the file was written on this machine and its process is gone, or after
`STALE_SECONDS` without a sign of life if it was written elsewhere. The owner gives a
sign of life every `BEAT_SECONDS`: it touches the file, from a thread of its own. Both
times compared are of the file system, so that the clocks of two machines may differ.

Not `flock` or `fcntl`, which the kernel would release by itself: on network file
systems they may hold on one machine alone (NFS mounted with `nolock` or `local_lock`,
Lustre without `flock`, most file systems in user space), and then two machines write
without a word. A hard link is made by the server, and a file says who holds the claim.
Where there are no hard links, the file is created exclusively.

Importing this module imports nothing heavy.

The file is long because a claim is made, kept alive, taken over and given back, and
each of these must hold when the process is killed in between.
"""

import dataclasses
import errno
import json
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from aslp_jax._errors import BadInput
from aslp_jax._json import parse

_TWO_PROGRAMS = "docs/what_can_go_wrong.md#two-programs-one-folder"
"""Page of the site on folders that two programs use."""

LOCK = "lock.json"
"""Name of the file in a claimed folder."""

BEAT_SECONDS = 15.0
"""Time between two signs of life."""

STALE_SECONDS = 120.0
"""Time without a sign of life after which an owner on another machine counts as dead.

Eight missed beats: a network file system that stalls for a minute ends no claim.
"""

_PATIENCE_SECONDS = STALE_SECONDS + 30.0
"""Longest time to wait for a folder that other processes hold for moments.

One of them may die in that moment, on another machine.
"""

_LOOK_SECONDS = 1.0
"""Time between two looks at a claim whose owner may be dead."""

_LARGEST = 4096
"""Bytes read of a lock file; ours has a few hundred."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


@dataclasses.dataclass(frozen=True)
class Owner:
    """Process that holds a claim.

    Attributes:
      host: name of its machine, for people.
      pid: number of the process.
      machine: boot and process namespace; two processes with the same one see each
        other's numbers.
      started: time at which the process started, as its system counts it; "" if
        unknown.
      since: time at which the claim was made, for people.
      token: random name of the claim.
    """

    host: str
    pid: int
    machine: str
    started: str
    since: str
    token: str

    def __str__(self) -> str:
        """Returns the owner for people."""
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_here(self) -> bool:
        """True if the process is seen from this one, if it still exists."""
        return self.machine == _machine()

    def is_alive(self, age: float) -> bool:
        """Returns True if the process still exists, as far as can be known.

        Args:
          age: time since its last sign of life, in seconds.
        """
        if not self.is_here:
            return age < STALE_SECONDS
        started = _started(self.pid)
        if started is None:
            return False
        if "" in (started, self.started):
            return age < STALE_SECONDS
        return started == self.started


class Held(BadInput):
    """Another process writes into the folder."""


class Claim:
    """Claim on a folder, held until `release`, or until the process ends.

    Attributes:
      folder: folder that is claimed.
      owner: this process.
    """

    def __init__(self, folder: Path, made: Sequence[Path] = ()) -> None:
        """Claims a folder that exists; see `claim`.

        Args:
          folder: absolute path of the folder.
          made: folders that were made for the claim, the outermost first; deleted at
            the end if they are still empty.

        Raises:
          Held: another process writes into the folder.
          OSError: the folder cannot be written.
        """
        self.folder = folder
        self.owner = _this_process()
        self._take()
        stop = threading.Event()
        self._release = weakref.finalize(
            self, _release, folder / LOCK, self.owner, stop, tuple(made)
        )
        threading.Thread(
            target=_beat, args=(folder / LOCK, self.owner.token, stop), daemon=True
        ).start()

    def _take(self) -> None:
        """Writes the lock file, or takes it over."""
        file = self.folder / LOCK
        mine = file.with_name(f"{LOCK}.{self.owner.token}.partial")
        try:
            with open(mine, "x", encoding="utf-8") as text:
                json.dump(dataclasses.asdict(self.owner), text)
                text.flush()
                os.fsync(text.fileno())
            _take(file, mine, file)
        finally:
            mine.unlink(missing_ok=True)
        _remove_left_behind(file)

    def check(self) -> None:
        """Checks that the claim is still held; a deleted lock file is written again.

        Raises:
          Held: this process gave no sign of life for so long that another one took the
            folder over, or claimed it after the lock file was deleted.
          OSError: the folder cannot be read or written.
        """
        found = _read(self.folder / LOCK)
        if found is None:
            self._take()
        elif found.token != self.owner.token:
            raise Held(
                f"{self.folder} was taken over by {found.shown}",
                page=_TWO_PROGRAMS,
            )

    def release(self) -> None:
        """Ends the claim; a second call does nothing."""
        self._release()

    def __enter__(self) -> "Claim":
        """Returns the claim."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the claim."""
        self.release()


def claim(folder: str | os.PathLike[str]) -> Claim:
    """Claims a folder for this process.

    Args:
      folder: folder to write into; made if missing, and deleted at the end if it was
        made and is empty.

    Raises:
      Held: another process writes into the folder; the message names it.
      OSError: the folder cannot be made or written.
    """
    path = Path(os.path.abspath(folder))
    made = [each for each in (path, *path.parents) if not each.exists()][::-1]
    try:
        path.mkdir(parents=True, exist_ok=True)
        return Claim(path, made)
    except BaseException:
        _remove_empty(made)
        raise


def claim_soon(folder: str | os.PathLike[str]) -> Claim:
    """Claims a folder as `claim` does, and waits for processes that hold it briefly.

    Raises:
      Held: another process still writes into the folder after `_PATIENCE_SECONDS`.
      OSError: the folder cannot be made or written.
    """
    began = time.monotonic()
    while True:
        try:
            return claim(folder)
        except Held:
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise
        time.sleep(0.2)


def writer_here(folder: Path) -> Owner | None:
    """Returns the process on this machine that holds the claim on a folder.

    For a message before a claim is tried; only `claim` decides.

    Args:
      folder: folder that may be missing.

    Returns:
      The process; None if there is none, or if it runs on another machine.

    Raises:
      OSError: the folder cannot be read.
    """
    found = _read(folder / LOCK)
    if found is None or found.owner is None or not found.owner.is_here:
        return None
    return found.owner if found.owner.is_alive(0.0) else None


def token(folder: Path) -> str | None:
    """Returns the random name of the claim on a folder.

    Two processes that read one name look at one folder, also from two machines.

    Args:
      folder: folder that may be missing.

    Returns:
      The name; None if the folder is not claimed, or cannot be read.
    """
    try:
        found = _read(folder / LOCK)
    except OSError:
        return None
    return None if found is None else found.token


def await_sign_of_life(folder: Path) -> None:
    """Waits while nobody can say if the owner of a claim on another machine is dead.

    Returns as soon as a claim can be made or refused at once: there is no claim, its
    owner runs on this machine, gives a sign of life, or gave none for `STALE_SECONDS`.

    Args:
      folder: folder that may be missing.

    Raises:
      OSError: the folder cannot be read.
    """
    first = _read(folder / LOCK)
    while first is not None and not (first.owner is not None and first.owner.is_here):
        try:
            return claim(folder).release()
        except Held:
            found = _read(folder / LOCK)
        if found is None or (found.token, found.time) != (first.token, first.time):
            return
        time.sleep(_LOOK_SECONDS)


def is_lock(name: str) -> bool:
    """Returns True for the names of lock files and of what a killed process leaves.

    Args:
      name: name of a file in a claimed folder.
    """
    return name == LOCK or name.startswith(f"{LOCK}.")


@dataclasses.dataclass(frozen=True)
class _Lock:
    """Lock file.

    Attributes:
      owner: its content; None if it is damaged or still being written.
      token: name of the claim.
      time: time of the last sign of life, by the clock of the file system.
    """

    owner: Owner | None
    token: str
    time: float

    @property
    def shown(self) -> str:
        """Owner for people."""
        return (
            f"a process that {LOCK} does not name"
            if not self.owner
            else str(self.owner)
        )

    def is_alive(self, now: float) -> bool:
        """Returns True if the owner still exists, as far as can be known."""
        age = now - self.time
        return age < STALE_SECONDS if not self.owner else self.owner.is_alive(age)


def _take(file: Path, mine: Path, lock: Path) -> None:
    """Makes a lock file, or replaces that of a dead process.

    One process alone may replace a lock: the one that makes the file named after the
    lock's token, by the same rules. If the lock is still the same after that, nobody
    else can have changed it, and nobody can before it is replaced.

    Args:
      file: lock file of the folder, for names and messages.
      mine: file with this process as the owner.
      lock: file to make, the lock or a successor's.
    """
    while True:
        if _link(mine, lock):
            return
        found = _read(lock)
        if found is None:
            continue  # released meanwhile
        if found.is_alive(mine.stat().st_mtime):
            text = f"{file.parent} is being written by {found.shown}"
            if found.owner is None or not found.owner.is_here:
                text += (
                    " (if that process is gone, the folder is free "
                    f"{STALE_SECONDS:.0f} s after its last sign of life)"
                )
            raise Held(
                f"{text}; wait for its end, or name another folder",
                page=_TWO_PROGRAMS,
            )
        successor = file.with_name(f"{file.name}.{found.token}")
        _take(file, mine, successor)
        again = _read(lock)
        if again is not None and again.token == found.token:
            os.replace(successor, lock)
            return
        successor.unlink(missing_ok=True)


def _link(mine: Path, lock: Path) -> bool:
    """Makes the lock file; returns False if there is one."""
    try:
        os.link(mine, lock)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        with open(lock, "xb") as file:
            file.write(mine.read_bytes())
        return True
    except FileExistsError:
        return False


def _read(lock: Path) -> _Lock | None:
    """Reads a lock file; returns None if there is none."""
    try:
        with open(lock, "rb") as file:
            status, content = os.fstat(file.fileno()), file.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    unnamed = f"{status.st_ino:x}-{status.st_mtime_ns:x}"
    try:
        values = parse(content)
        owner = Owner(**values)
        kinds = {field.name: field.type for field in dataclasses.fields(Owner)}
        valid = all(type(values[name]) is kind for name, kind in kinds.items())
        valid = valid and owner.token.isalnum() and len(owner.token) <= 64
    except (ValueError, TypeError):
        valid = False
    if not valid:
        return _Lock(None, unnamed, status.st_mtime)
    return _Lock(owner, owner.token, status.st_mtime)


def _beat(lock: Path, token: str, stop: threading.Event) -> None:
    """Touches a lock file until it is released or belongs to another."""
    while not stop.wait(BEAT_SECONDS):
        try:
            found = _read(lock)
            if found is not None and found.token == token:
                os.utime(lock)
        except OSError:
            pass  # a file system that is away may come back


def _release(
    lock: Path, owner: Owner, stop: threading.Event, made: Sequence[Path]
) -> None:
    stop.set()
    if os.getpid() != owner.pid:
        return  # a child that was forked holds no claim
    try:
        found = _read(lock)
        if found is not None and found.token == owner.token:
            lock.unlink()
    except OSError:
        return  # another process takes it over
    _remove_empty(made)


def _remove_empty(made: Sequence[Path]) -> None:
    for folder in reversed(made):
        try:
            folder.rmdir()
        except OSError:
            return


def _remove_left_behind(file: Path) -> None:
    """Deletes what claims left behind that ended while they were made."""
    now = file.stat().st_mtime
    for each in file.parent.glob(f"{LOCK}.*"):
        found = _read(each)
        if found is not None and not found.is_alive(now):
            each.unlink(missing_ok=True)


def _this_process() -> Owner:
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        started=_started(os.getpid()) or "",
        since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        token=secrets.token_hex(8),
    )


def _machine() -> str:
    """Returns a name that this boot and process namespace have and no other has."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return f"{boot.strip()} {os.stat('/proc/self/ns/pid').st_ino}"
    except (OSError, ValueError):  # not on this system
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """Returns the start of a process, "" if unknown; None if there is no process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except OSError:
            pass  # it belongs to another person
        return ""
    state, *rest = status.rpartition(b")")[2].split()
    # A zombie has ended; its parent has not asked for its exit code yet.
    return None if state in (b"Z", b"X") else rest[18].decode()

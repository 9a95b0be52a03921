"""A systemd of its own for tests, as process 1 of namespaces for pids, mounts and control groups. Needs root."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess

from support.processes import descendants, wait_until

SYSTEMD = "/lib/systemd/systemd"
UNITS = "/usr/lib/systemd/system"  # where it finds them
_numbers = itertools.count()
_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_TARGETS = ("sysinit", "basic", "network-online", "multi-user", "shutdown", "umount", "final", "exit")

# Where it looks for units there is nothing but those of the test, and it shares no files that are for one boot.
_BOOT = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var
mount -t tmpfs tmpfs /etc/systemd/system
mount -t tmpfs tmpfs {UNITS}
cp -r "$1"/* {UNITS}/
umount -l {_CGROUPS}
if [ "$2" = unified ]; then
  mount -t cgroup2 cgroup2 {_CGROUPS}
else
  mount -t tmpfs -o mode=755 tmpfs {_CGROUPS}
  mkdir {_CGROUPS}/systemd {_CGROUPS}/unified
  mount -t cgroup -o none,name=systemd cgroup {_CGROUPS}/systemd
  mount -t cgroup2 cgroup2 {_CGROUPS}/unified
fi
exec env -i container=test PATH=/usr/bin:/bin {SYSTEMD} --system --unit=multi-user.target --log-target=console
"""


class NotPossible(Exception):
    """This process may not make namespaces, or the machine has no systemd that runs in them."""


class ServiceManager:
    """Runs the units in `folder`. It shares this machine's network, and files outside of /run and /var."""

    def __init__(self, folder: pathlib.Path) -> None:
        for name in _TARGETS:
            (folder / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
        unified = not (_CGROUPS / "unified").exists()
        groups = [_CGROUPS] if unified else [_CGROUPS / "systemd", _CGROUPS / "unified"]
        self._groups = [group / f"raytest-{os.getpid()}-{next(_numbers)}" for group in groups]
        self.log = folder.parent / "systemd.log"
        try:
            for group in self._groups:
                group.mkdir()
        except FileExistsError:  # another's: nobody removes it but who made it
            raise
        except OSError as error:
            self._remove_groups()
            raise NotPossible(f"no control groups can be made here: {error}") from error
        enter = " && ".join(f"echo $$ > {group}/cgroup.procs" for group in self._groups)
        spaces = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--kill-child")
        with open(self.log, "w") as log:
            self._popen = subprocess.Popen(
                [
                    *("sh", "-c", f'{enter} && exec unshare "$@"', "sh", *spaces),
                    *("sh", "-c", _BOOT, "sh", str(folder), "unified" if unified else "hybrid"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: self._popen.poll() is not None or self._is_up(), 20, "systemd is up")
        except BaseException:
            self.close()
            raise
        if self._popen.poll() is not None:
            self.close()
            raise NotPossible(f"systemd does not run here: {self.log.read_text()[-2000:]}")

    def _is_up(self) -> bool:
        try:
            return self.systemctl("is-active", "multi-user.target") == "active"
        except IndexError:  # it has no process yet, or has ended
            return False

    def systemctl(self, *arguments: str) -> str:
        """What `systemctl ARGUMENTS` says, whatever its exit code."""
        init = descendants(self._popen.pid)[0]  # the one child of `unshare`
        command = ["nsenter", f"--target={init}", "--mount", "--pid", "systemctl", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()

    def pid_of(self, program: str) -> int | None:
        """Of the process of that name, if there is one now."""
        for pid in descendants(self._popen.pid):
            try:
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == program:
                    return pid
            except OSError:
                continue
        return None

    def close(self) -> None:
        """Ends it, and all that it runs. Idempotent."""
        self._popen.kill()
        self._popen.wait(timeout=20)
        wait_until(self._remove_groups, 20, "its control groups are empty")

    def _remove_groups(self) -> bool:
        for group in self._groups:
            for path, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    return False
        return True

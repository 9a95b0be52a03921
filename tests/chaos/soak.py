"""All workloads under all killers for a long time: results are checked, and nothing may grow.

    python tests/chaos/soak.py [--minutes 30] [--seed S] [--pace 0.5] [--keep]

Every few seconds the memory, descriptors and threads of the processes that last are looked at (this driver, the head's
raylet, the GCS), and the disk that the session takes. At the end a line is fitted to each, from the first fifth on, and
its slope is printed per minute, beside that of the last half: what only fills levels off. What grows faster than its
bound makes the run fail, as does a wrong result, a wait longer than a minute, and whatever is left behind: processes,
sockets, shared memory. Exit code 0: nothing of that.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

SAMPLE_S = 2.0


@dataclass
class Series:
    """Values over time. `bound`: what it may grow in a minute."""

    unit: str
    bound: float
    points: list[tuple[float, float]] = field(default_factory=list)

    def slope(self, without: float) -> float:
        """Per minute, of the line with the least squares, without that part of the run, which is at its beginning."""
        points = self.points[int(len(self.points) * without) :]
        if len(points) < 5:
            return 0.0
        mean_t = sum(t for t, _ in points) / len(points)
        mean_v = sum(v for _, v in points) / len(points)
        over = sum((t - mean_t) * (v - mean_v) for t, v in points)
        under = sum((t - mean_t) ** 2 for t, _ in points)
        return 60 * over / under


def status_of(pid: int) -> dict[str, float]:
    """Resident memory without what is shared, in MiB; threads; descriptors."""
    fields = dict(
        line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    # The store's memory belongs to nobody's heap; it is shared.
    return {
        "memory": int(fields["RssAnon"].split()[0]) / 1024,
        "threads": int(fields["Threads"]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
    }


def disk_of(root: pathlib.Path) -> tuple[float, float]:
    """MiB that the logs below a folder take, and the rest."""
    logs = rest = 0
    for path, _, names in os.walk(root):
        for name in names:
            try:
                size = os.lstat(os.path.join(path, name)).st_blocks * 512
            except OSError:
                continue
            if "/logs" in path:
                logs += size
            else:
                rest += size
    return logs / 2**20, rest / 2**20


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", default=str(random.randrange(1 << 30)))
    parser.add_argument("--pace", type=float, default=0.5, help="of the kills; 1 is that of the test")
    parser.add_argument("--keep", action="store_true", help="leave the logs, also if all was right")
    arguments = parser.parse_args()

    folder = pathlib.Path(tempfile.mkdtemp(prefix="ray-soak-"))
    # What the programs write down for themselves grows with their work; it does not count.
    own_files = pathlib.Path(tempfile.mkdtemp(prefix="ray-soak-own-"))
    os.environ["RAY_TMPDIR"] = str(folder)
    os.environ["RAY_gcs_storage"] = "sqlite"  # noqa: SIM112 - a public name
    # What is remembered of what has ended is full within the first fifth, and shows no slope from then on.
    for what in ("destroyed_actor", "dead_worker", "dead_node", "removed_placement_group", "finished_job"):
        os.environ[f"RAY_maximum_gcs_{what}_cached_count"] = "50"
    shared = set(os.listdir("/dev/shm"))

    from chaos import harness, killers, workloads
    from support.processes import descendants, session_processes, wait_until

    import ray

    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes, files in {folder}", flush=True)
    cluster = killers.ChaosCluster(2)
    ray.init(address=cluster.cluster.address, namespace="chaos", logging_level="ERROR", log_to_driver=False)
    bounds = {"memory": ("MiB", 1.0), "threads": ("", 0.2), "descriptors": ("", 1.0)}
    series = {
        f"{who}: {what}": Series(unit, bound)
        for who in ("driver", "head's raylet", "gcs_server")
        for what, (unit, bound) in bounds.items()
    }
    # Each process that is started has a log of its own, so these grow with the kills, and that is all.
    series["disk: logs"] = Series("MiB", float("inf"))
    series["disk: the rest"] = Series("MiB", 1.0)
    began = time.monotonic()
    last = [0.0, 0.0]  # when it was looked at; when it was told

    def sample() -> None:
        now = time.monotonic() - began
        if now - last[0] < SAMPLE_S:
            return
        last[0] = now
        node = cluster.head._node
        for who, process in (("driver", None), ("head's raylet", node.raylet), ("gcs_server", node.gcs_server)):
            try:
                seen = status_of(os.getpid() if process is None else process.pid)
            except (OSError, KeyError, AttributeError):  # it has just been killed
                continue
            for what, value in seen.items():
                series[f"{who}: {what}"].points.append((now, value))
        logs, rest = disk_of(folder)
        series["disk: logs"].points.append((now, logs))
        series["disk: the rest"].points.append((now, rest))
        if now - last[1] >= 60:
            last[1] = now
            latest = ", ".join(f"{name} {line.points[-1][1]:.1f}" for name, line in series.items() if line.points)
            print(f"{now / 60:6.1f} min: {latest}", flush=True)

    outcome = harness.run_chaos(
        cluster,
        workloads.ALL,
        killers.ALL,
        seed=arguments.seed,
        seconds=60 * arguments.minutes,
        folder=own_files,
        pace=arguments.pace,
        meanwhile=sample,
    )
    if outcome.failures:
        harness.dump(folder, folder / "dump")
    else:
        harness.wait_idle(cluster, 60)
    ray.shutdown()
    cluster.cluster.shutdown()
    print(outcome)
    failed = bool(outcome.failures)
    for name, line in series.items():
        if not line.points:
            continue
        slope, later = line.slope(1 / 5), line.slope(1 / 2)
        grows = slope > line.bound
        failed = failed or grows
        first, final = line.points[len(line.points) // 5][1], line.points[-1][1]
        verdict = "" if not grows else f"   GROWS: more than {line.bound:g}"
        print(
            f"{name:24} {first:9.1f} -> {final:9.1f} {line.unit:3} "
            f"slope {slope:+.3f} a minute, {later:+.3f} in the last half{verdict}"
        )
    try:
        wait_until(lambda: not descendants(os.getpid()), 20, "no process is left")
        left = session_processes(str(folder)), killers.sockets_below(folder), set(os.listdir("/dev/shm")) - shared
        assert not any(left), left
    except AssertionError as error:
        print("LEFT BEHIND:", error)
        failed = True
    if not failed and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(own_files, ignore_errors=True)
    print("FAILED" if failed else "all was right")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

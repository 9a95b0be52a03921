from ray._runtime import session_dir
from ray._runtime.node_resources import available_memory, cpu_count, detect


def _machine(root, *, available_kb=8 << 20, limit="max", used="0", cpu_max="max 100000"):
    for path, text in {
        "proc/meminfo": f"MemTotal: 1 kB\nMemAvailable:  {available_kb} kB\n",
        "sys/fs/cgroup/memory.max": limit,
        "sys/fs/cgroup/memory.current": used,
        "sys/fs/cgroup/cpu.max": cpu_max,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_memory_is_bounded_by_the_cgroup(tmp_path):
    assert available_memory(_machine(tmp_path)) == 8 << 30
    assert available_memory(_machine(tmp_path, limit=str(3 << 30), used=str(1 << 30))) == 2 << 30


def test_every_group_above_bounds_both_and_so_does_version_1(tmp_path):
    for path, text in {
        "proc/self/cgroup": "5:memory:/slice/job\n4:cpuacct,cpu:/slice\n0::/a/b\n",
        "proc/meminfo": f"MemAvailable: {8 << 20} kB\n",
        "sys/fs/cgroup/a/memory.max": str(7 << 30),
        "sys/fs/cgroup/a/memory.current": str(1 << 30),
        "sys/fs/cgroup/memory/slice/job/memory.limit_in_bytes": str((1 << 63) - 4096),
        "sys/fs/cgroup/memory/slice/memory.limit_in_bytes": str(4 << 30),
        "sys/fs/cgroup/memory/slice/memory.usage_in_bytes": str(3 << 30),
        "sys/fs/cgroup/cpu/slice/cpu.cfs_quota_us": "100000",
        "sys/fs/cgroup/cpu/slice/cpu.cfs_period_us": "100000",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert available_memory(tmp_path) == 1 << 30
    assert cpu_count(tmp_path) == 1


def test_cpus_are_bounded_by_the_quota(tmp_path):
    assert cpu_count(_machine(tmp_path, cpu_max="100000 100000")) == 1


def test_store_is_three_tenths(tmp_path):
    sizes = detect(2, 0, None, None, _machine(tmp_path))
    assert sizes.object_store_memory == int((8 << 30) * 0.3)
    assert sizes.memory == (8 << 30) - sizes.object_store_memory
    assert detect(2, 0, None, 100 << 20, tmp_path).object_store_memory == 100 << 20


def test_session_directories(tmp_path):
    made = session_dir.make_session_dir(tmp_path)
    assert (made / "sockets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "session_latest").resolve() == made
    gone = [tmp_path / f"session_2000-01-0{i}_00-00-00_000000_99999999{i}" for i in range(1, 9)]
    for path in gone:
        path.mkdir()
    session_dir.reap_old_sessions(tmp_path)
    assert made.exists()
    assert [path.exists() for path in gone] == [False] * 3 + [True] * 5

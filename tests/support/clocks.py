"""A wall clock that jumps, for the processes of a test. The monotonic one goes on as ever."""

from __future__ import annotations

import pathlib
import struct
import subprocess

import pytest

# In place of the C library's. The offset, in seconds, is in a file that all of them map.
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t* offset;

__attribute__((constructor)) static void map_offset(void) {
  const int fd = open(getenv("TEST_WALL_CLOCK"), O_RDONLY | O_CLOEXEC);
  void* at = fd < 0 ? MAP_FAILED : mmap(0, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) abort();
  close(fd);
  offset = at;
}

int clock_gettime(clockid_t id, struct timespec* out) {
  const int rc = syscall(SYS_clock_gettime, id, out);
  if (rc == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += *offset;
  return rc;
}

int gettimeofday(struct timeval* restrict out, void* restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
"""


class WallClock:
    """`env` puts it under a process and what that starts; skips the test where there is no C compiler."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._offset = folder / "wall_clock"
        self._offset.write_bytes(bytes(8))
        source, library = folder / "wall_clock.c", folder / "wall_clock.so"
        source.write_text(_SOURCE)
        try:
            command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
            subprocess.run(command, timeout=60, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no C compiler here")
        self.env = {"LD_PRELOAD": str(library), "TEST_WALL_CLOCK": str(self._offset)}

    def jump_to(self, seconds: int) -> None:
        """So far ahead of the real one, or behind it."""
        with self._offset.open("r+b") as f:
            f.write(struct.pack("=q", seconds))

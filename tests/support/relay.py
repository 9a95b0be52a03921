"""A cable between two network namespaces that can be made late and lossy, on kernels whose traffic control cannot.

    python relay.py NAMESPACE DEVICE NAMESPACE DEVICE

makes an Ethernet device in each, says "up", and carries frames from one to the other until its input ends. A line
"SECONDS SHARE" there makes every frame that late, and loses that share of them, in both directions, from when it is
answered: with the number of those that were lost so far. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME = 1 << 16


def make_device(namespace: str, device: str) -> int:
    """A descriptor with the frames that are sent to an Ethernet device there, and that is there as long as this is."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as where:
        if libc.setns(where.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI))
    return descriptor


def carry(ends: tuple[int, int], orders: int) -> None:
    """Until the end of the orders."""
    other = dict(zip(ends, reversed(ends), strict=True))
    late_s, share, lost = 0.0, 0.0, 0
    chance = random.Random(1)
    under_way: list[tuple[float, int, int, bytes]] = []  # due, number, to, frame
    number = 0
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select([orders, *ends], [], [], patience)
        if orders in ready:
            lines = os.read(orders, 4096).decode().split("\n")
            if lines == [""]:
                return
            late_s, share = map(float, lines[-2].split())
            print(lost, flush=True)
        for end in ends:
            with contextlib.suppress(BlockingIOError):
                while end in ready:
                    frame = os.read(end, _FRAME)
                    number += 1
                    if chance.random() < share:
                        lost += 1
                    else:
                        heapq.heappush(under_way, (time.monotonic() + late_s, number, other[end], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(under_way)
            with contextlib.suppress(OSError):  # that device is down, or has no room: as if lost
                os.write(to, frame)


if __name__ == "__main__":
    first, second = make_device(*sys.argv[1:3]), make_device(*sys.argv[3:5])
    print("up", flush=True)
    carry((first, second), sys.stdin.fileno())

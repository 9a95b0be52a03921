"""Tensors of torch through the store; skipped where there is no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")

# The environment is read once in a process, so each way has a driver of its own.
_PREAMBLE = """
import gc, warnings
import torch
import ray

warnings.simplefilter("error")

def mapped(tensor):
    "How the memory of the tensor is mapped, or '' where it is no shared memory."
    for line in open("/proc/self/maps"):
        place, rights, *_, name = line.split(maxsplit=5)
        first, last = (int(edge, 16) for edge in place.split("-"))
        if first <= tensor.data_ptr() < last:
            return rights if "memfd:" in name else ""
    return ""

def bits(tensor):
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)

def same(a, b):
    described = [(t.dtype, t.shape, t.requires_grad, type(t)) for t in (a, b)]
    return described[0] == described[1] and bits(a).equal(bits(b))

def through(value):
    return ray.get(ray.put(value))

big = torch.arange(400_000, dtype=torch.float32).reshape(400, 1000)
ray.init("local", num_cpus=2, logging_level="ERROR")
"""


def drive(script: str, zero_copy: bool) -> None:
    env = {**os.environ, "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": str(int(zero_copy))}
    done = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + textwrap.dedent(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_values_survive_whatever_the_kind() -> None:
    script = """
    complex_one = torch.view_as_complex(big.reshape(-1, 2))
    kinds = [big, big.T, big[:, ::2], big[3:, 5:], torch.ones(1).expand(400, 1000), big[0, 0], torch.empty(0, 3)]
    kinds += [torch.tensor(3), big.reshape(2, 2, 100, 1000).to(memory_format=torch.channels_last)]
    kinds += [complex_one, complex_one.conj(), complex_one.conj().imag]
    types = ("bfloat16", "float16", "int8", "bool", "float8_e4m3fn", "uint16")
    kinds += [big.to(getattr(torch, name)) for name in types]
    kinds += [big.clone().requires_grad_(), torch.nn.Parameter(big), torch.nn.Parameter(big, requires_grad=False)]
    for kind in kinds:
        assert same(through(kind), kind), (kind.dtype, kind.shape, kind.stride())
        assert same(ray.get(ray.remote(lambda x: x).remote(kind)), kind)
    sparse = torch.eye(300).to_sparse()
    assert through(sparse).to_dense().equal(sparse.to_dense())
    tagged = torch.zeros(2)
    tagged.tag = "kept"
    assert through(tagged).tag == "kept"
    twice = through([big, big])
    assert twice[0] is twice[1]
    """
    drive(script, zero_copy=True)
    drive(script, zero_copy=False)


def test_what_is_read_is_the_stores_own_memory() -> None:
    script = """
    for tensor in (big, big.T, big.bfloat16(), big.to(torch.float8_e4m3fn), big.requires_grad_(False)):
        back = through(tensor)
        assert mapped(back) == "r--s", mapped(back)
        assert back.stride() == tensor.stride() and back.data_ptr() % 64 == 0
    ref = ray.put({"list": [big, (big.half(),)], "state": torch.nn.Linear(600, 600).state_dict()})
    first, second = ray.get(ref), ray.get(ref)
    assert first["list"][0].data_ptr() == second["list"][0].data_ptr()
    held = [first["list"][0], first["list"][1][0], *first["state"].values()]
    assert [mapped(t) for t in held[:3]] == ["r--s"] * 3
    sums = [t.double().sum() for t in held]
    del ref, first, second
    gc.collect()
    others = [ray.put(torch.full((400, 1000), float(i))) for i in range(20)]
    assert [t.double().sum() for t in held] == sums  # they keep their place as long as they live

    changed = held[0].clone()
    changed += 1
    assert mapped(changed) == "" and changed[0, 0] == 1

    @ray.remote
    def place(tensor):
        return mapped(tensor), tensor.sum()

    rights, total = ray.get(place.remote(big))
    assert rights == "r--s" and total == big.sum()
    wide = torch.ones(1).expand(1000, 1000)
    assert through(wide).stride() == (0, 0)  # one element, not a million
    """
    drive(script, zero_copy=True)


def test_what_is_to_be_trained_is_each_readers_own() -> None:
    script = """
    model = through(torch.nn.Linear(400, 400))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.clone()
    model(torch.ones(400)).sum().backward()
    optimizer.step()
    assert not model.weight.equal(before) and mapped(model.weight) == ""
    leaf = through(big.clone().requires_grad_())
    leaf.sum().backward()
    assert leaf.is_leaf and leaf.grad.equal(torch.ones(400, 1000))
    """
    drive(script, zero_copy=True)

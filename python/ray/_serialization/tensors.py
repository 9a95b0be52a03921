"""Tensors of torch without a copy: with RAY_ENABLE_ZERO_COPY_TORCH_TENSORS=1 they travel as buffers, as arrays do.

What is read is memory that all readers share: a tensor made so must not be written to.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from typing import Any


def wanted() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get("RAY_ENABLE_ZERO_COPY_TORCH_TENSORS", "0").lower() in ("1", "true")


def reduce_tensor(obj: Any) -> tuple[Any, ...] | None:
    """What pickles a plain tensor in the CPU's memory; None for all else, and where torch was never imported."""
    torch = sys.modules.get("torch")
    if torch is None or type(obj) is not getattr(torch, "Tensor", None):
        return None
    if obj.device.type != "cpu" or obj.layout is not torch.strided or obj.requires_grad or obj.is_quantized:
        return None
    if obj.is_conj() or obj.is_neg():
        obj = obj.resolve_conj().resolve_neg()
    # As bytes: numpy has not all of torch's types.
    flat = obj.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return _restore, (pickle.PickleBuffer(flat), str(obj.dtype).removeprefix("torch."), tuple(obj.shape))


def _restore(data: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    import torch  # type: ignore[import-not-found,unused-ignore]  # there is one where a tensor was pickled

    kind = getattr(torch, dtype)
    if 0 in shape:
        return torch.empty(shape, dtype=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the buffer is read-only, as promised
        return torch.frombuffer(data, dtype=kind).reshape(shape)

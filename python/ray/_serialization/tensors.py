"""Tensors of torch in the CPU's memory.

With RAY_ENABLE_ZERO_COPY_TORCH_TENSORS=1 they travel as buffers, as arrays do, and are read without a copy. What is
read then is memory that all readers share and none may write to: writing ends the process (SIGSEGV), so whoever wants
to change such a tensor clones it. Tensors and parameters that require a gradient are there to be changed: each reader
gets a copy of its own.

Without it torch pickles its tensors, but for the element types that it cannot pickle: those take the same way, and are
copied when they are read.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from typing import Any

# What torch pickles by itself.
_TORCH_PICKLES = frozenset(
    "torch." + name
    for name in (
        *("float64", "float32", "float16", "bfloat16", "complex64", "complex128"),
        *("int64", "int32", "int16", "int8", "uint8", "bool"),
    )
)


def wanted() -> bool:
    """Whether the environment asks for tensors without a copy."""
    return os.environ.get("RAY_ENABLE_ZERO_COPY_TORCH_TENSORS", "0").lower() in ("1", "true")


def reduce_tensor(obj: Any, zero_copy: bool) -> tuple[Any, ...] | None:
    """What pickles a plain tensor or parameter; None for all else, and for what torch is to pickle."""
    torch = sys.modules.get("torch")
    kind = type(obj)
    if torch is None or (kind is not getattr(torch, "Tensor", None) and kind is not _parameter_class(torch)):
        return None
    if obj.device.type != "cpu" or obj.layout is not torch.strided or obj.is_quantized:
        return None
    if obj.__dict__ or obj._backward_hooks:  # of no use without them
        return None
    if not zero_copy and str(obj.dtype) in _TORCH_PICKLES:
        return None
    is_parameter, requires_grad = kind is not torch.Tensor, obj.requires_grad
    shape = tuple(obj.shape)
    flat, stored_shape, order = _flat(torch, obj.detach())
    shared = zero_copy and not requires_grad
    how = (str(obj.dtype).removeprefix("torch."), stored_shape, order, shape, shared, is_parameter, requires_grad)
    return _restore, (pickle.PickleBuffer(flat), *how)


def _parameter_class(torch: Any) -> Any:
    return getattr(getattr(torch, "nn", None), "Parameter", None)


def _flat(torch: Any, tensor: Any) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """The elements as bytes, in the order in which memory has them, with their shape and which dimension is which.

    Dimensions that only repeat what is there (`expand`) are stored once.
    """
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    order = tuple(sorted(range(tensor.dim()), key=lambda dim: -tensor.stride(dim)))
    dense = tensor.permute(order).contiguous()
    # As bytes: numpy has not all of torch's types.
    line = dense.as_strided((dense.numel(),), (1,))  # not reshape: a single element would keep whatever stride it has
    return line.view(torch.uint8).numpy(), tuple(dense.shape), order


def _restore(
    data: Any,
    dtype: str,
    stored_shape: tuple[int, ...],
    order: tuple[int, ...],
    shape: tuple[int, ...],
    shared: bool,
    is_parameter: bool,
    requires_grad: bool,
) -> Any:
    import torch  # type: ignore[import-not-found,unused-ignore]  # there is one where a tensor was pickled

    kind = getattr(torch, dtype)
    if 0 in stored_shape:
        made = torch.empty(stored_shape, dtype=kind)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the buffer is read-only, as promised
            made = torch.frombuffer(data, dtype=kind).reshape(stored_shape)
        if not shared:
            made = made.clone()
    made = made.permute([order.index(dim) for dim in range(len(order))]).expand(shape)
    if is_parameter:
        return torch.nn.Parameter(made, requires_grad)
    return made.requires_grad_() if requires_grad else made

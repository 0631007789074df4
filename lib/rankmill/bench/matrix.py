"""The rate of a large matrix product: what the device can do at best, in the same dtype, here and now."""

import statistics
import time

import torch

_SIZES = {"cpu": 2_048, "cuda": 8_192}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PRODUCTS = 3


def matrix_rate(device: str, precision: str, size: int | None = None) -> float | None:
    """Floating-point operations per second of a square product of random data; the median of a few.

    Args:
        device: `cpu` or `cuda`.
        precision: of both factors and of the product.
        size: rows and columns; None is large for the device.

    Returns:
        None for a precision that torch multiplies no matrices in.
    """
    dtype = _DTYPES.get(precision)
    if dtype is None:
        return None
    side = size or _SIZES[device]
    draw = torch.Generator(device).manual_seed(0)  # zeros would draw less power, and run faster
    left, right = (torch.randn(side, side, generator=draw, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    seconds = []
    for _ in range(_PRODUCTS + 1):
        started = time.perf_counter()
        torch.mm(left, right, out=product)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[1:])  # the first one is slow

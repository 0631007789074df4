"""The rate of a large matrix product: what the device can do at best, in the same precision, here and now.

How close a library comes to that depends on the processor, so every engine at hand multiplies: torch, and on a CPU
OpenVINO where it is installed, as a compiled graph whose second factor is a constant, as weights are. The fastest
counts.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_SIZES = {"cpu": 2_048, "cuda": 8_192}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16"}
_PRODUCTS = 3


@dataclass(frozen=True, slots=True)
class Best:
    """The fastest engine's rates."""

    engine: str
    """`torch` or `openvino`."""
    rates: list[float]
    """Floating-point operations per second, one per round."""


class MatrixProduct:
    """A square product of random data, ready to be timed through every engine at hand.

    Args:
        device: `cpu` or `cuda`.
        precision: what is computed in.
        threads: of OpenVINO; torch has been told already.
        size: rows and columns; None is large for the device.
    """

    def __init__(self, device: str, precision: str, threads: int, size: int | None = None) -> None:
        self._operations = 2 * (size or _SIZES[device]) ** 3
        self._products: dict[str, Callable[[], object]] = {}
        if precision not in _DTYPES:
            return
        draw = torch.Generator(device).manual_seed(0)  # zeros would draw less power, and run faster
        side = size or _SIZES[device]
        left, right = (torch.randn(side, side, generator=draw, device=device) for _ in range(2))
        self._products["torch"] = _torch(left.to(_DTYPES[precision]), right.to(_DTYPES[precision]))
        if device == "cpu" and precision in _HINTS and importlib.util.find_spec("openvino"):
            product = _openvino(left.numpy(), right.numpy(), precision, threads)
            self._products |= {} if product is None else {"openvino": product}

    def rates(self) -> dict[str, float]:
        """Floating-point operations per second of each engine, medians of a few products; empty where none can."""
        return {name: self._operations / _seconds(product) for name, product in self._products.items()}


def best(rounds: Sequence[Mapping[str, float]]) -> Best | None:
    """The engine with the highest median.

    Args:
        rounds: what `MatrixProduct.rates` said in each.

    Returns:
        None where nothing was measured.
    """
    if not rounds or not rounds[0]:
        return None
    engine = max(rounds[0], key=lambda name: statistics.median(rates[name] for rates in rounds))
    return Best(engine, [rates[engine] for rates in rounds])


def _seconds(product: Callable[[], object]) -> float:
    product()  # the first one is slow
    seconds = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _torch(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    product = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=product)
        if left.device.type == "cuda":
            torch.cuda.synchronize()

    return multiply


def _openvino(left: Any, right: Any, precision: str, threads: int) -> Callable[[], object] | None:
    """None for a precision that this CPU has no arithmetic for: OpenVINO would quietly take a wider one."""
    import openvino  # noqa: PLC0415 - an extra
    from openvino import opset13  # noqa: PLC0415

    core = openvino.Core()
    if _CAPABILITIES[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    given = opset13.parameter(left.shape, openvino.Type.f32)
    graph = openvino.Model([opset13.matmul(given, opset13.constant(right), False, False)], [given], "product")
    compiled = core.compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(left))  # a copy: memory that is shared is not kept alive

    def multiply() -> object:
        request.infer()
        return request.get_output_tensor().data

    return multiply

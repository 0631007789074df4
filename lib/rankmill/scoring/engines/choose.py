"""Which engine, device and precision: pure policy, and what this machine has to offer."""

import ctypes
import importlib.util
from dataclasses import dataclass, replace

from rankmill.errors import UsageError
from rankmill.scoring.options import ScorerOptions

_WORTH_CONVERTING = 5_000_000
"""Parameters. A smaller model is scored by torch in less time than its conversion takes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to choose from."""

    gpus: int
    """CUDA devices that this process may use."""
    openvino: bool
    """Whether the extra `cpu` is installed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was decided, and why."""

    engine: str
    """`torch` or `openvino`."""
    device: str
    """`cuda` or `cpu`."""
    precision: str
    """`float32`, `bfloat16` or `float16`."""
    why: str
    """One sentence for people."""


def choose(options: ScorerOptions, machine: Machine, *, parameters: int, convertible: bool) -> Choice:
    """Decide on what was left open.

    A GPU wins over the CPU. On a CPU, OpenVINO computes the same logits in less time than torch where it is installed
    and the model is an encoder of some size.

    Args:
        options: what was asked for; `concrete`.
        machine: what there is.
        parameters: of the model.
        convertible: whether OpenVINO can take the model: an encoder with a classification head.

    Raises:
        UsageError: what was asked for is not there.
    """
    if options.device == "cuda" and not machine.gpus:
        raise UsageError("--device cuda was given, but torch sees no GPU here; use --device auto or cpu.")
    device = "cuda" if machine.gpus and options.device != "cpu" else "cpu"
    if device == "cpu" and options.precision == "float16":
        raise UsageError("--precision float16 needs a GPU; on a CPU use bfloat16 or float32.")
    if options.engine == "openvino":
        _refuse_openvino(machine, device, convertible=convertible)
    if options.engine != "auto":
        return Choice(options.engine, device, options.precision, "as asked for")
    obstacle = _obstacle(machine, device, parameters=parameters, convertible=convertible)
    if obstacle:
        return Choice("torch", device, options.precision, obstacle)
    return Choice("openvino", device, options.precision, "the fastest engine on a CPU")


def _obstacle(machine: Machine, device: str, *, parameters: int, convertible: bool) -> str:
    """What speaks against OpenVINO; empty for nothing."""
    if device == "cuda":
        return "there is a GPU"
    if not convertible:
        return "OpenVINO is used for encoders with a classification head only"
    if parameters < _WORTH_CONVERTING:
        return "the model is too small to be worth converting"
    if not machine.openvino:
        return "OpenVINO is not installed (pip install 'rankmill[cpu]')"
    return ""


def concrete(options: ScorerOptions) -> ScorerOptions:
    """The options with a precision that is not `auto`: bfloat16 on a GPU, float32 on a CPU, where it is exact."""
    if options.precision != "auto":
        return options
    gpu = options.device == "cuda" or (options.device == "auto" and this_machine().gpus > 0)
    return replace(options, precision="bfloat16" if gpu else "float32")


def this_machine() -> Machine:
    """Look, without importing torch, which takes seconds."""
    return Machine(gpus=_gpus(), openvino=importlib.util.find_spec("openvino") is not None)


def _refuse_openvino(machine: Machine, device: str, *, convertible: bool) -> None:
    if not machine.openvino:
        raise UsageError("--engine openvino: OpenVINO is not installed; pip install 'rankmill[cpu]'.")
    if device != "cpu":
        raise UsageError("--engine openvino runs on the CPU; give --device cpu as well, or leave the engine out.")
    if not convertible:
        raise UsageError("--engine openvino takes encoders with a classification head; leave it out for this model.")


def _gpus() -> int:
    """CUDA devices, from the driver itself; CUDA_VISIBLE_DEVICES counts."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value

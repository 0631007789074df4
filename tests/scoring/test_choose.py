"""Which engine, device and precision: policy, without a model."""

import pytest

from rankmill.errors import UsageError
from rankmill.scoring.engines.choose import Machine, choose
from rankmill.scoring.options import ScorerOptions

LARGE, SMALL = 22_000_000, 50_000
CPU, BARE, GPU = Machine(0, openvino=True), Machine(0, openvino=False), Machine(2, openvino=True)


@pytest.mark.parametrize(
    ("machine", "parameters", "convertible", "engine", "device", "why"),
    [
        (CPU, LARGE, True, "openvino", "cpu", "fastest engine on a CPU"),
        (CPU, SMALL, True, "torch", "cpu", "too small"),
        (CPU, LARGE, False, "torch", "cpu", "encoders with a classification head"),
        (BARE, LARGE, True, "torch", "cpu", "not installed"),
        (GPU, LARGE, True, "torch", "cuda", "there is a GPU"),
    ],
)
def test_auto(machine: Machine, parameters: int, *, convertible: bool, engine: str, device: str, why: str) -> None:
    choice = choose(ScorerOptions(precision="float32"), machine, parameters=parameters, convertible=convertible)
    assert (choice.engine, choice.device) == (engine, device)
    assert why in choice.why


def test_what_was_asked_for_wins() -> None:
    torch = choose(ScorerOptions(engine="torch", precision="float32"), CPU, parameters=LARGE, convertible=True)
    assert (torch.engine, torch.why) == ("torch", "as asked for")
    small = choose(ScorerOptions(engine="openvino", precision="float32"), CPU, parameters=SMALL, convertible=True)
    assert small.engine == "openvino"
    cpu = choose(ScorerOptions(device="cpu", precision="float32"), GPU, parameters=LARGE, convertible=True)
    assert (cpu.engine, cpu.device) == ("openvino", "cpu")


@pytest.mark.parametrize(
    ("options", "machine", "convertible", "said"),
    [
        ({"device": "cuda"}, CPU, True, "no GPU here; use --device auto or cpu"),
        ({"precision": "float16"}, CPU, True, "float16 needs a GPU"),
        ({"engine": "openvino"}, BARE, True, r"pip install 'rankmill\[cpu\]'"),
        ({"engine": "openvino"}, GPU, True, "give --device cpu as well"),
        ({"engine": "openvino"}, CPU, False, "takes encoders with a classification head"),
    ],
)
def test_what_is_not_there_is_refused(
    options: dict[str, str], machine: Machine, *, convertible: bool, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        choose(ScorerOptions(**options), machine, parameters=LARGE, convertible=convertible)  # type: ignore[arg-type]

"""Weights into transformers' own classes, with nothing missing, nothing left over and nothing guessed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from rankmill.errors import ModelError
from rankmill.scoring.int8 import is_int8, load_int8
from rankmill.scoring.model_files import ModelFiles

_NAMED_IN_MESSAGES = 5


def load_network(
    files: ModelFiles,
    architecture: str,
    precision: str,
    device: torch.device,
    *,
    unused: tuple[str, ...] = (),
    attention: str = "sdpa",
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """Load a model of transformers, ready for inference.

    Weights become float32 whatever the file holds (transformers 5 would keep a float16 file in float16), then the body
    is cast to `precision`. Its hidden states are turned back into float32 where they leave it, so that pooling
    and head are computed in float32: a bfloat16 head has 8 bits for a logit, and distinct documents tie.

    Args:
        files: the model's folder.
        architecture: the class of transformers.
        precision: of the body.
        device: where to put it.
        unused: weights that the file may hold and that the class has no use for.
        attention: what the class computes it with, as transformers names it: `sdpa`, or `eager` for one without.
        arguments: what the class is built with beyond its config, such as `{"add_pooling_layer": False}`.

    Raises:
        ModelError: a weight is missing, left over or of the wrong shape.
    """
    model = files.name
    state = _read_weights(files)
    for name in unused:
        state.pop(name, None)
    build: Any = getattr(transformers, architecture)
    try:
        with quiet():
            network, report = build.from_pretrained(
                None,
                config=build.config_class.from_dict(dict(files.config)),
                state_dict=state,
                dtype=torch.float32,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,  # reported below, with the names
                output_loading_info=True,
                **(arguments or {}),
            )
    except Exception as error:
        # whatever a config.json can get wrong: heads that do not divide the hidden size, an unknown hidden_act, …
        raise ModelError(
            f"transformers cannot build the model {model!r} from its config.json: {type(error).__name__}: {error}"
        ) from error
    refuse_differences(model, report)
    network = network.eval().requires_grad_(requires_grad=False)
    return _cast_body(network, getattr(torch, precision)).to(device)


def _read_weights(files: ModelFiles) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for path in files.weights:
        state.update(load_int8(path) if is_int8(path) else load_file(path))
    if not files.sources:
        return state
    return {name: _take(state[source.name], source.third) for name, source in files.sources.items()}


def _take(tensor: torch.Tensor, third: int | None) -> torch.Tensor:
    if third is None:
        return tensor
    rows = len(tensor) // 3
    return tensor[third * rows : (third + 1) * rows]


def refuse_differences(model: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that do not fit, from the loading report of transformers.

    Raises:
        ModelError: naming those that are missing, left over or of the wrong shape.
    """
    problems = [
        _listed("missing", sorted(report["missing_keys"])),
        _listed("not part of the architecture", sorted(report["unexpected_keys"])),
        _listed("of another shape than config.json says", sorted(str(key[0]) for key in report["mismatched_keys"])),
        _listed("unreadable", [str(message) for message in report.get("error_msgs", [])]),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise ModelError(
            f"The weights of the model {model!r} do not fit its architecture: {found}. A model that is only partly "
            "loaded scores at random, so it is refused; fetch or save it again, complete."
        )


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED_IN_MESSAGES} more" if len(names) > _NAMED_IN_MESSAGES else ""
    return f"{', '.join(names[:_NAMED_IN_MESSAGES])}{more} {'is' if len(names) == 1 else 'are'} {what}"


def _cast_body(network: Any, precision: torch.dtype) -> Any:
    """Cast the encoder's body; what comes after it stays float32.

    `base_model` is the body in every family. BERT's pooler sits inside it but belongs to the head, so it stays float32
    and gets float32 input.
    """
    if precision == torch.float32:
        return network
    body = network.base_model
    pooler = getattr(body, "pooler", None)
    for child in body.children():
        if child is not pooler:
            # not child.to(): buffers stay, because rotary frequencies in bfloat16 would be off by radians at position
            # 1,000
            for parameter in child.parameters():
                parameter.data = parameter.data.to(precision)

    def widen_output(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.float()
        return output

    def widen_input(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.float() for tensor in inputs)

    body.register_forward_hook(widen_output)
    if pooler is not None:
        pooler.register_forward_pre_hook(widen_input)
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bar and load report off stderr; what they would say is raised as an error."""
    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

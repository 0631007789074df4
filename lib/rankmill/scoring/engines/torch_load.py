"""Weights into transformers' own classes, with nothing missing, nothing left over and nothing guessed."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import transformers
from safetensors import safe_open

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

    Weights come in the wanted type whatever the file holds (transformers 5 would keep a float16 file in float16): the
    body's in `precision`, all others in float32. The body's hidden states are turned back into float32 where they leave
    it, so that pooling and head are computed in float32: a bfloat16 head has 8 bits for a logit, and distinct
    documents tie.

    The host holds the network as it will be, and of the files a few tensors at a time: a 16-bit language model is never
    there in float32 as well, which would be twice its size more. Only files with int8 rows are read as a whole.

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
    build: Any = getattr(transformers, architecture)
    dtype: torch.dtype = getattr(torch, precision)
    with ExitStack() as opened:
        state = _weights(files, opened)
        for name in unused:
            state.pop(name, None)
        try:
            with quiet():
                network, report = _with_narrow_body(build, dtype).from_pretrained(
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
    network.__class__ = build
    network = network.eval().requires_grad_(requires_grad=False)
    return _widen_around_body(network, dtype).to(device)


def _weights(files: ModelFiles, opened: ExitStack) -> dict[str, Any]:
    """Weights by the names of transformers, which asks for each by `[...]`: only then is it read."""
    state: dict[str, Any] = {}
    for path in files.weights:
        if is_int8(path):
            state.update(load_int8(path))
            continue
        file = opened.enter_context(safe_open(path, framework="pt"))
        state.update({name: file.get_slice(name) for name in file.keys()})  # noqa: SIM118 - not a dict
    if not files.sources:
        return state
    return {name: _take(state[source.name], source.third) for name, source in files.sources.items()}


def read_weight(files: ModelFiles, name: str) -> torch.Tensor:
    """A weight by its name in transformers, which is there, in float32."""
    with ExitStack() as opened:
        stored = _weights(files, opened)[name]
        found: torch.Tensor = stored[...]
        return found.float()


def _take(stored: Any, third: int | None) -> Any:
    if third is None:
        return stored
    tensor: torch.Tensor = stored[...]
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


def _with_narrow_body(build: Any, precision: torch.dtype) -> Any:
    """The class, with its body's parameters in `precision` from the start.

    transformers casts each weight that it reads to the type of the parameter that it fills. Everything else is made in
    float32, as ever.
    """
    if precision == torch.float32:
        return build

    def initialise(network: Any, *args: Any, **arguments: Any) -> None:
        build.__init__(network, *args, **arguments)
        _cast_body(network, precision)

    # of the same name, by which transformers knows what a class is for
    return type(build.__name__, (build,), {"__init__": initialise, "__module__": build.__module__})


def _cast_body(network: Any, precision: torch.dtype) -> None:
    """Cast the parameters of the encoder's body; what comes after it stays float32.

    `base_model` is the body in every family. BERT's pooler sits inside it but belongs to the head.
    """
    body = network.base_model
    pooler = getattr(body, "pooler", None)
    for child in body.children():
        if child is not pooler:
            # not child.to(): buffers stay, because rotary frequencies in bfloat16 would be off by radians at position
            # 1,000
            for parameter in child.parameters():
                parameter.data = parameter.data.to(precision)


def _widen_around_body(network: Any, precision: torch.dtype) -> Any:
    """Give what comes after a narrow body float32 input: the head, and BERT's pooler inside the body."""
    if precision == torch.float32:
        return network
    _cast_body(network, precision)  # nothing is left to cast, unless transformers took another type
    body = network.base_model
    pooler = getattr(body, "pooler", None)

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

"""The OpenVINO engine (extra `cpu`): the encoder's body as an OpenVINO graph, pooling and head in torch, float32.

The graph is converted from the torch module once, checked against it, and kept in the cache folder. Its hidden states
leave it as float32 whatever it computes in, so that a bfloat16 body has a float32 head, as with the torch engine.
"""

import importlib.metadata
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.batches import padded
from rankmill.scoring.cache import cache_folder
from rankmill.scoring.card import digest
from rankmill.scoring.engines.given_states import GivenStates
from rankmill.scoring.files import sha256
from rankmill.scoring.model_files import ModelFiles
from rankmill.types import EncodedPairs

log = logging.getLogger(__name__)

_GRAPH_VERSION = 2  # raised when the same module would be converted differently
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_BATCH_TOKENS = 2_048
# Of hidden states, which a LayerNorm keeps at a size of about 1: float32 came out within 1e-5, a graph without the
# padding mask differs by whole units.
_TOLERANCE = 1e-3


class OpenVino:
    """Padded micro-batches through a compiled graph.

    Args:
        files: the model's folder, for the cache's key.
        network: the whole classification model on the CPU, float32; its body is taken out, the rest is the head.
        precision: of the body: `float32` or `bfloat16`.
        threads: CPU threads; None for all that this process may use.
        pad_id: token id of padding.
        segments: whether the network takes token_type_ids.

    Raises:
        UsageError: this CPU has no bfloat16, or the precision is another one.
        ModelError: the model cannot be converted, or the graph computes something else than the module.
    """

    name = "openvino"
    device = "cpu"
    batch_tokens = _BATCH_TOKENS

    def __init__(
        self, files: ModelFiles, network: Any, *, precision: str, threads: int | None, pad_id: int, segments: bool
    ) -> None:
        import openvino  # noqa: PLC0415 - an extra

        core = openvino.Core()
        if precision not in _HINTS:
            raise UsageError(f"--engine openvino computes in float32 or bfloat16; --precision is {precision}.")
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError("--precision bfloat16: this CPU has no bfloat16 arithmetic; use float32.")
        self._pad_id = pad_id
        self._segments = segments
        graph = _graph(core, files, network, segments=segments)
        self._compiled = core.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
                "INFERENCE_NUM_THREADS": threads or _cores(),
                "NUM_STREAMS": "1",
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,  # several workers on one machine would be pinned to the same cores
            },
        )
        self._given = GivenStates(getattr(network.base_model, "pooler", None))
        setattr(network, network.base_model_prefix, self._given)
        self._head = network

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> torch.Tensor:
        """Run the forward pass; done when this returns."""
        inputs = padded(pairs, rows, pad_id=self._pad_id, segments=self._segments)
        states = self._compiled(inputs, share_inputs=True, share_outputs=True)[0]
        with torch.inference_mode(), _one_thread(), self._given.holding(torch.from_numpy(states)):
            output = self._head(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            logits: torch.Tensor = output.logits[:, 0]
            return logits.float()

    def collect(self, outputs: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Join what `run` returned."""
        joined: NDArray[np.float32] = torch.cat(list(outputs)).numpy()
        return joined

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether there was no memory for the micro-batch's activations."""
        return isinstance(error, MemoryError) or "allocat" in str(error)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to the calling thread within the block.

    The head is a few small products. Spread over threads, each of those would go on spinning for milliseconds after
    them, on the cores that OpenVINO's threads then want: 5 to 15 % of the processor time of short calls.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Body(torch.nn.Module):
    """A network's body with positional inputs and one output, as the converter wants it."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        named = {"token_type_ids": rest[0]} if rest else {}
        states: torch.Tensor = self.body(input_ids=input_ids, attention_mask=attention_mask, **named)[0]
        return states


def _graph(core: Any, files: ModelFiles, network: Any, *, segments: bool) -> Any:
    """The body's graph, from the cache or converted now."""
    path = cache_folder() / "openvino" / _key(files, segments=segments) / "body.xml"
    if path.is_file():
        try:
            return core.read_model(path)
        except RuntimeError as error:
            log.warning("the converted model in %s cannot be read (%s); converting again", path.parent, error)
            shutil.rmtree(path.parent, ignore_errors=True)
    graph = _convert(files.name, network, segments=segments)
    _check(core, graph, files.name, network, segments=segments)
    _keep(graph, path)
    return graph


def _key(files: ModelFiles, *, segments: bool) -> str:
    return digest(
        {
            "graph": _GRAPH_VERSION,
            "weights": [sha256(path) for path in files.weights],
            "config": digest(dict(files.config)),
            "segments": segments,
            "versions": [importlib.metadata.version(name) for name in ("openvino", "torch", "transformers")],
        }
    )


def _convert(model: str, network: Any, *, segments: bool) -> Any:
    import openvino  # noqa: PLC0415

    body = _Body(network.base_model).eval()
    if hasattr(network.config, "local_attention"):
        # A window that holds nothing but padding has no token to attend to. torch's fused attention gives such rows
        # zeros, OpenVINO's NaN, which spreads; the plain one masks with a finite number.
        network.set_attn_implementation("eager")
    example = _example(network, segments=segments)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's guesses at what may go wrong; `_check` sees what does
            graph = openvino.convert_model(body, example_input=tuple(map(torch.from_numpy, example.values())))
        for port, name in zip(graph.inputs, example, strict=True):
            port.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
            port.get_node().set_element_type(openvino.Type.i64)
            port.get_tensor().set_names({name})
        graph.validate_nodes_and_infer_types()
    except Exception as error:
        # whatever the converter meets: operations it lacks, shapes it cannot follow
        raise ModelError(
            f"OpenVINO cannot convert the model {model!r}: {str(error).splitlines()[0]} Use --engine torch."
        ) from error
    return graph


def _example(network: Any, *, segments: bool, rows: int = 2, width: int = 11) -> dict[str, NDArray[np.int64]]:
    """A padded batch: without padding, a trace would find no need for the mask."""
    padding = network.config.pad_token_id or 0
    ids = 5 + np.arange(rows * width, dtype=np.int64).reshape(rows, width) % max(1, network.config.vocab_size - 5)
    lengths = np.linspace(width, width // 2, rows).astype(np.int64)
    real = np.arange(width) < lengths[:, None]
    inputs = {"input_ids": np.where(real, ids, padding), "attention_mask": real.astype(np.int64)}
    if segments:
        inputs["token_type_ids"] = (real & (np.arange(width) >= 4)).astype(np.int64)
    return inputs


def _check(core: Any, graph: Any, model: str, network: Any, *, segments: bool) -> None:
    """Compare graph and module on a batch of another shape than the one that was traced."""
    inputs = _example(network, segments=segments, rows=3, width=19)
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(inputs)[0]
    with torch.no_grad():
        expected = _Body(network.base_model)(*map(torch.from_numpy, inputs.values())).numpy()
    real = inputs["attention_mask"].astype(bool)
    difference = float(np.abs(found - expected)[real[:, : found.shape[1]]].max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"OpenVINO's conversion of the model {model!r} computes something else than the model does (hidden states "
            f"differ by {difference:.2g}). Use --engine torch."
        )


def _keep(graph: Any, path: Path) -> None:
    """Store a graph so that no other process ever sees half of it; a cache that cannot be written is no error."""
    import openvino  # noqa: PLC0415

    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent.parent) as partial:
            folder = Path(partial) / "graph"
            folder.mkdir()
            openvino.save_model(graph, folder / path.name, compress_to_fp16=False)
            folder.rename(path.parent)
    except OSError as error:
        if not path.is_file():  # else another process was faster
            log.warning("the converted model cannot be kept in %s: %s", path.parent, error)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

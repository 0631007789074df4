"""Language models in the torch engine: the body, and of the head only the rows of the words that answer."""

from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from rankmill.errors import ModelError
from rankmill.scoring.engines.torch_load import load_network
from rankmill.scoring.engines.torch_padded import TorchPadded, choose_device, set_up_torch
from rankmill.scoring.int8 import is_int8, load_int8
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.options import ScorerOptions

if TYPE_CHECKING:
    from rankmill.scoring.families.causal import LanguageModel

_HEAD, _EMBEDDINGS, _CLASSIFIER = "lm_head.weight", "model.embed_tokens.weight", "score.weight"


def load_causal(model: "LanguageModel", options: ScorerOptions) -> TorchPadded:
    """Load a language model's weights.

    A pair's logit is `hidden · (row of the positive word - row of the negative one)` at its last token, in float32. All
    150,000 logits of every token, which a language model computes otherwise, would take more memory than the body.

    Raises:
        ModelError: the weights do not fit the architecture.
        UsageError: the device is not there.
    """
    set_up_torch(options)
    device = choose_device(options)
    # through the CPU: the head, in float32, need not fit on a GPU
    network = load_network(model.files, model.architecture, options.precision, torch.device("cpu"))
    # from the file: where head and embeddings are one matrix, it is now in the body's precision
    if model.words is None:
        direction = _row(model.files, _CLASSIFIER, 0)
    else:
        # transformers 5 leaves a head of its own alone, even where config.json says that both are one matrix
        tied = network.config.tie_word_embeddings and _HEAD not in model.files.tensors
        head = _EMBEDDINGS if tied else _HEAD
        direction = _row(model.files, head, model.words.positive)
        if model.words.negative is not None:
            direction = direction - _row(model.files, head, model.words.negative)
    body = network.base_model.to(device)
    direction = direction.to(device)

    def logits(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        # Padding is on the right and a token sees only what is before it, so that no real token ever sees padding: the
        # network needs no mask, and positions count from 0 in every row.
        hidden: torch.Tensor = body(input_ids=input_ids, use_cache=False).last_hidden_state  # [rows, width, hidden]
        last = attention_mask.sum(dim=1) - 1
        return hidden[torch.arange(len(last), device=last.device), last].float() @ direction

    return TorchPadded(logits, device, pad_id=0, segments=False)


def _row(files: ModelFiles, name: str, row: int) -> torch.Tensor:
    """One row of a stored matrix, in float32, without reading the rest of it.

    Raises:
        ModelError: the matrix is not there.
    """
    for path in files.weights:
        if is_int8(path):
            state = load_int8(path)
            if name in state:
                return state[name][row].float()
            continue
        with safe_open(path, framework="pt") as opened:
            if name in opened.keys():  # noqa: SIM118 - not a dict
                found: torch.Tensor = opened.get_slice(name)[row : row + 1]
                return found[0].float()
    raise ModelError(f"The weights of the model {files.name!r} are incomplete: {name} is missing.")

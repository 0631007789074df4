"""jina-reranker-v3 in torch: a prompt's hidden states at its marks, projected in float32."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rankmill.scoring.block_scorer import Embed, Vectors
from rankmill.scoring.engines.torch_device import move
from rankmill.scoring.engines.torch_layers import load_body
from rankmill.scoring.engines.torch_load import read_weight
from rankmill.scoring.engines.torch_padded import choose_device, set_up_torch
from rankmill.scoring.families.bodies import BODIES
from rankmill.scoring.list_prompt import ListPrompt
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.options import ScorerOptions

_BODY = next(body for body in BODIES if body.name == "qwen3")


def load_lists(
    files: ModelFiles, projector: tuple[str, str], prompt: ListPrompt, options: ScorerOptions
) -> tuple[Embed, str]:
    """Load the weights.

    Args:
        files: the model's folder.
        projector: names of its two matrices.
        prompt: what writes the prompts that are embedded.
        options: device and precision.

    Returns:
        What embeds prompts, and the device that it does so on.

    Raises:
        ModelError: the weights do not fit the architecture.
        UsageError: the device is not there, or the engine asked for is another one.
    """
    set_up_torch(options)
    device = choose_device(options)
    network = load_body(files, _BODY, options, device, *projector, "lm_head.weight")
    first, second = (read_weight(files, name).to(device) for name in projector)

    def embed(ids: NDArray[np.int32]) -> tuple[Vectors, Vectors]:
        marks = np.append(np.flatnonzero(ids == prompt.document_mark), np.flatnonzero(ids == prompt.query_mark))
        with torch.inference_mode():
            # one prompt, no padding: a token sees what is before it, without any mask
            hidden = network(input_ids=move(ids[None].astype(np.int64), device), use_cache=False).last_hidden_state[0]
            marked = hidden[move(marks, device)].float()
            vectors = functional.linear(functional.relu(functional.linear(marked, first)), second).cpu().numpy()
        return vectors[-1], vectors[:-1]

    return embed, device.type

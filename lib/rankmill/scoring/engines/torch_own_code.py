"""Networks that a model's own Python code builds; see `families.own_code` for what is asked of them."""

from typing import TYPE_CHECKING, Any

import torch
import transformers

from rankmill.errors import ModelError
from rankmill.scoring.engines.torch_load import quiet, refuse_differences
from rankmill.scoring.engines.torch_padded import TorchPadded, choose_device, set_up_torch
from rankmill.scoring.options import ScorerOptions

if TYPE_CHECKING:
    from rankmill.scoring.families.own_code import OwnCode


def load_own_code(model: "OwnCode", options: ScorerOptions) -> TorchPadded:
    """Run the code and load the weights.

    Raises:
        ModelError: the code fails, or the weights are not exactly what it asks for.
        UsageError: the device is not there.
    """
    set_up_torch(options)
    device = choose_device(options)
    files = model.files
    auto: Any = transformers.AutoModelForSequenceClassification
    try:
        with quiet():
            network, report = auto.from_pretrained(
                files.location.folder,
                trust_remote_code=True,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:
        raise ModelError(
            f"The code of the model {files.name!r} fails ({type(error).__name__}: {error}). It may need another "
            f"version of transformers than {transformers.__version__}, or a package that is not installed."
        ) from error
    refuse_differences(files.name, report)
    network = network.eval().requires_grad_(requires_grad=False).to(device)
    padding = getattr(network.config, "pad_token_id", None)

    def logits(**inputs: Any) -> torch.Tensor:
        found: torch.Tensor = network(**inputs).logits
        rows = len(inputs["input_ids"])
        if found.shape != (rows, 1):
            raise ModelError(
                f"The code of the model {files.name!r} gave logits of shape {tuple(found.shape)} for {rows} pairs; a "
                "reranker gives one per pair."
            )
        return found[:, 0].float()

    return TorchPadded(logits, device, pad_id=0 if padding is None else padding, segments=model.template.segments)

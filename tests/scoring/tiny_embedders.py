"""Models that embed, made small: random weights in folders of sentence-transformers, Stanford ColBERT and PyLate."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from tests.tiny_models import MAX_LENGTH, save_tiny_model

BODIES = ("bert", "distilbert", "electra", "modernbert", "mpnet", "qwen3", "roberta", "xlm-roberta")
HIDDEN = 32
_CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (transformers.BertConfig, {}),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": HIDDEN, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    ),
    "electra": (transformers.ElectraConfig, {"embedding_size": 16}),
    "modernbert": (
        transformers.ModernBertConfig,
        {
            "num_hidden_layers": 4,
            "global_attn_every_n_layers": 3,
            "local_attention": 40,  # or a short query's last mask tokens, which see only its text, would see nothing
            **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
        },
    ),
    "mpnet": (transformers.MPNetConfig, {"max_position_embeddings": MAX_LENGTH + 2}),
    "qwen3": (transformers.Qwen3Config, {"num_key_value_heads": 1, "head_dim": 16, "bos_token_id": None}),
    "roberta": (transformers.RobertaConfig, {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1}),
    "xlm-roberta": (transformers.XLMRobertaConfig, {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1}),
}
_TOKENIZERS = {"distilbert": "bert", "mpnet": "xlm-roberta", "qwen3": "modernbert"}
"""Whose tokenizer a body takes, where it is not its own."""
_POOLING = "sentence_transformers.models.Pooling"
_NORMALIZE = "sentence_transformers.models.Normalize"
_DENSE = "sentence_transformers.models.Dense"


def save_body(folder: Path, family: str = "bert", seed: int = 0, markers: Sequence[str] = ()) -> Any:
    """Write a network without a head, with a tokenizer; returns the network."""
    save_tiny_model(folder, _TOKENIZERS.get(family, family), seed)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    if markers:
        tokenizer.add_tokens(list(markers))
        tokenizer.save_pretrained(folder)
    config_class, settings = _CONFIGS[family]
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH,
        "initializer_range": 0.2,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = config_class(**{**common, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto: Any = transformers.AutoModel
        network = auto.from_config(config)
    network.eval().save_pretrained(folder)
    return network


def save_bi_encoder(
    folder: Path,
    family: str = "bert",
    *,
    pooling: str = "mean",
    dense: int | None = None,
    activation: str = "torch.nn.modules.activation.Tanh",
    normalize: bool = False,
    max_length: int | None = None,
    lower_case: bool = False,
    **sentence_transformers: Any,
) -> Path:
    """Write a folder as sentence-transformers does.

    Args:
        folder: created where needed.
        family: one of `BODIES`.
        pooling: as its `pooling_mode_…` is called.
        dense: width of a dense layer, or None for no layer.
        activation: of the dense layer.
        normalize: whether a normalisation comes last.
        max_length: `max_seq_length` of sentence_bert_config.json.
        lower_case: `do_lower_case` of that file.
        sentence_transformers: what config_sentence_transformers.json holds.

    Returns:
        `folder`.
    """
    save_body(folder, family)
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", _POOLING)]
    modes = {mode: mode == pooling for mode in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    if not any(modes.values()):
        modes[{"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}[pooling]] = True
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": HIDDEN, **{f"pooling_mode_{mode}": on for mode, on in modes.items()}},
    )
    if dense is not None:
        modules.append(("2_Dense", _DENSE))
        save_dense(folder / "2_Dense", HIDDEN, dense, bias=True, activation=activation)
    if normalize:
        modules.append((f"{len(modules)}_Normalize", _NORMALIZE))
        (folder / modules[-1][0]).mkdir()
    _write_modules(folder, modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": lower_case})
    _write(folder / "config_sentence_transformers.json", sentence_transformers)
    return folder


def save_stanford(folder: Path, width: int = 8, **metadata: Any) -> Path:
    """Write a ColBERT as Stanford's code does: weights `bert.*` and `linear.weight`, settings in artifact.metadata."""
    network = save_body(folder, markers=["[unused0]", "[unused1]"])
    state = {f"bert.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state["linear.weight"] = torch.randn(width, HIDDEN)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    settings = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 16,
        "doc_maxlen": 40,
        "attend_to_mask_tokens": False,
        "mask_punctuation": True,
        "dim": width,
        "similarity": "cosine",
    }
    _write(folder / "artifact.metadata", {**settings, **metadata})
    return folder


def save_pylate(
    folder: Path,
    family: str = "modernbert",
    *,
    widths: Sequence[int] = (8,),
    residual: bool = False,
    lower_case: bool = False,
    **settings: Any,
) -> Path:
    """Write a ColBERT as PyLate does: dense layers in folders, settings in config_sentence_transformers.json."""
    save_body(folder, family, markers=["[Q] ", "[D] "])
    modules = [("", "sentence_transformers.models.Transformer.Transformer")]
    before = HIDDEN
    for number, width in enumerate(widths, start=1):
        modules.append((f"{number}_Dense", "pylate.models.Dense.Dense"))
        identity = "torch.nn.modules.linear.Identity"
        save_dense(folder / f"{number}_Dense", before, width, bias=False, activation=identity, residual=residual)
        before = width
    _write_modules(folder, modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 39, "do_lower_case": lower_case})
    stated = {
        "model_type": "ColBERT",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 16,
        "document_length": 40,
        "attend_to_expansion_tokens": False,
        "do_query_expansion": True,
        "skiplist_words": [",", ".", "!", "?", "-"],
    }
    _write(folder / "config_sentence_transformers.json", {**stated, **settings})
    return folder


def save_dense(folder: Path, before: int, after: int, *, bias: bool, activation: str, residual: bool = False) -> None:
    """Write a dense layer as sentence-transformers and PyLate do."""
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(before * 1000 + after)
        state = {"linear.weight": torch.randn(after, before) / before**0.5}
        if bias:
            state["linear.bias"] = torch.randn(after)
        if residual and before != after:
            state["residual.weight"] = torch.randn(after, before) / before**0.5
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"in_features": before, "out_features": after, "bias": bias, "activation_function": activation}
    _write(folder / "config.json", {**config, "use_residual": residual})


def _write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    lines = [{"idx": i, "name": str(i), "path": path, "type": name} for i, (path, name) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(lines))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))

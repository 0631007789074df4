"""Language-model rerankers, made small: random weights, and tokenizers trained in memory in the shape of the real ones.

`save_tiny_llm(folder, "qwen3")` writes what a hub download of Qwen3-Reranker holds.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rankmill.scoring.prompts import BGE_GEMMA, MXBAI_V2, QWEN3_RERANKER, Prompt
from tests.tiny_models import CORPUS

LLMS = ("qwen3", "qwen3-untied", "qwen3-classifier", "gemma", "qwen2")
PROMPTS: dict[str, Prompt] = {
    "qwen3": QWEN3_RERANKER,
    "qwen3-untied": QWEN3_RERANKER,
    "qwen3-classifier": QWEN3_RERANKER,
    "gemma": BGE_GEMMA,
    "qwen2": MXBAI_V2,
}
MAX_POSITIONS = 1024

# what Qwen2Tokenizer splits by: a line break joins the punctuation before it, and a blank the word after it
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LIST_MARKS = ("<|embed_token|>", "<|rerank_token|>")
_QWEN_WORDS = ("<think>", "</think>")  # tokens of their own, but not special ones
_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": 0.1,  # 0.02, the usual, would give every pair the same logit
    "bos_token_id": None,
    "eos_token_id": None,
}


def save_tiny_llm(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a reranker with random weights; the name of its folder says nothing.

    Args:
        folder: created where needed.
        kind: one of `LLMS`.
        seed: equal seeds give equal weights.

    Returns:
        `folder`, with a chat template that holds the prompt's sentence, as sentence-transformers saves it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _gemma_tokenizer() if kind == "gemma" else _qwen_tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(f"{{# a prompt #}}{PROMPTS[kind].signature}")
    config_class, architecture, settings = _NETWORKS[kind]
    settings = {**_COMMON, **settings, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = getattr(transformers, architecture)(config_class(**settings))
    network.eval().save_pretrained(folder)
    return folder


_NETWORKS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "qwen3": (transformers.Qwen3Config, "Qwen3ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3-untied": (transformers.Qwen3Config, "Qwen3ForCausalLM", {"tie_word_embeddings": False}),
    "qwen3-classifier": (transformers.Qwen3Config, "Qwen3ForSequenceClassification", {"num_labels": 1}),
    "gemma": (transformers.GemmaConfig, "GemmaForCausalLM", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "qwen2": (transformers.Qwen2Config, "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
}


def _texts() -> list[str]:
    """With the answers, and with what stands at the borders of the fields, often enough to become tokens."""
    prompts = ["".join((*prompt.opening, prompt.lead(None), *prompt.closing)) for prompt in (QWEN3_RERANKER, MXBAI_V2)]
    borders = [
        "yes no Yes No yes\nno\n",
        "really?\n<Document>: what?\n\n",
        "done.\n",
        "well ...\n",
        "Yes",
        "a )\n",
        ":\n",
    ]
    return [*CORPUS, *prompts, *borders * 20]


def save_tiny_lists(folder: Path, *, sliding: bool = False, seed: int = 0) -> Path:
    """Write what a hub download of jina-reranker-v3 holds, or with `sliding` of v3.5, but for its modelling file."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _qwen_tokenizer(LIST_MARKS)
    tokenizer.model_max_length = MAX_POSITIONS
    tokenizer.save_pretrained(folder)
    layers = {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1} if sliding else {}
    config = transformers.Qwen3Config(
        **{**_COMMON, **layers, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = transformers.Qwen3ForCausalLM(config)
        network.lm_head = torch.nn.Identity()
        network.projector = torch.nn.Sequential(
            torch.nn.Linear(32, 16, bias=False), torch.nn.ReLU(), torch.nn.Linear(16, 24, bias=False)
        )
    network.eval().save_pretrained(folder)
    stated = json.loads((folder / "config.json").read_text())
    stated |= {"architectures": ["JinaForRanking"], "auto_map": {"AutoModel": "modeling.JinaForRanking"}}
    (folder / "config.json").write_text(json.dumps(stated))
    return folder


def _qwen_tokenizer(more: tuple[str, ...] = ()) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in (*_QWEN_SPECIALS, *more)])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in _QWEN_WORDS])
    return _wrapped(tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")  # noqa: S106


def _gemma_tokenizer() -> Any:
    """BPE over the whole text, blanks as `▁`, unknown characters as bytes, no blank in front."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=600, max_token_length=12, show_progress=False)
    # in pieces: the trainer takes minutes for texts that nothing splits
    trained.train_from_iterator([piece for text in _texts() for piece in _pieces(text)], trainer)
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    found = json.loads(trained.to_str())["model"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *found["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in found["merges"]],
            unk_token="<unk>",  # noqa: S106
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in specials])
    return _wrapped(tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")  # noqa: S106


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [words[0], *(f" {word}" for word in words[1:])]


def _wrapped(tokenizer: Tokenizer, **special: str) -> Any:
    wrap: Any = transformers.PreTrainedTokenizerFast
    return wrap(tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **special)

"""What tells the dialects on a shared path apart: the body's keys, because clients send no other sign.

A null is as good as no key, and no sign. But some clients send the very keys that give them away as nulls, voyageai its
`top_k` and clients of vLLM their `use_activation`: of Voyage and vLLM, a key is a sign whatever its value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rankmill.serving.dialects.cohere import COHERE
from rankmill.serving.dialects.dashscope import DASHSCOPE
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.infinity import INFINITY
from rankmill.serving.dialects.mixedbread import MIXEDBREAD
from rankmill.serving.dialects.pinecone import PINECONE
from rankmill.serving.dialects.sglang import SGLANG
from rankmill.serving.dialects.standard import STANDARD
from rankmill.serving.dialects.tei import TEI
from rankmill.serving.dialects.vllm_rerank import VLLM_RERANK, in_parts
from rankmill.serving.dialects.voyage import VOYAGE
from rankmill.serving.dialects.weaviate import WEAVIATE


@dataclass(frozen=True, slots=True)
class Sign:
    """By which a body is known to be a dialect's."""

    text: str
    """In words."""
    dialect: Dialect
    fits: Callable[[Mapping[str, Any]], bool]
    """Whether a body has it."""


def _all_of(dialect: Dialect, *keys: str) -> Sign:
    return Sign(_listed(keys, "and"), dialect, lambda body: all(body.get(key) is not None for key in keys))


def _any_of(dialect: Dialect, *keys: str) -> Sign:
    return Sign(_listed(keys, "or"), dialect, lambda body: any(body.get(key) is not None for key in keys))


def _any_even_null(dialect: Dialect, *keys: str) -> Sign:
    return Sign(f"{_listed(keys, 'or')}, even null", dialect, lambda body: any(key in body for key in keys))


def _listed(keys: tuple[str, ...], word: str) -> str:
    *others, last = [f"`{key}`" for key in keys]
    return f"{', '.join(others)} {word} {last}" if others else last


_OWN = ("return_logits", "min_score", "activation", "long_documents")
"""Fields that only rankmill has. Cohere's dialect, which is on paths that `standard` is not on, refuses them."""

SIGNS: tuple[Sign, ...] = (
    _all_of(TEI, "texts"),
    _all_of(MIXEDBREAD, "input", "query"),
    _all_of(DASHSCOPE, "input"),
    _all_of(WEAVIATE, "property"),
    _any_of(STANDARD, *_OWN),
    _any_of(COHERE, *_OWN),
    _all_of(INFINITY, "raw_scores"),
    _any_even_null(VOYAGE, "top_k", "truncation"),
    _all_of(SGLANG, "instruct"),
    _any_even_null(VLLM_RERANK, "use_activation", "normalize"),
    _any_even_null(VLLM_RERANK, "truncate_prompt_tokens", "truncation_side", "max_tokens_per_query"),
    _any_even_null(VLLM_RERANK, "mm_processor_kwargs", "chat_template_kwargs", "cache_salt"),
    Sign("`content` and no `text` in `query` or the first of `documents`", VLLM_RERANK, in_parts),
    _any_of(PINECONE, "parameters", "rank_fields"),
)
"""In the order in which they count."""

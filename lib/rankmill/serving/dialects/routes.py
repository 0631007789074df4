"""Which dialects are spoken on which path, and how one is chosen where several share a path.

Only the body decides. On every path the first line below that fits counts, of those whose dialect is spoken there (see
`rankmill.serving.dialects.signs`); else it is the path's last dialect.

| a body with                                                                      | is in the words of |
|----------------------------------------------------------------------------------|--------------------|
| `texts`                                                                          | tei                |
| `input` and `query`                                                              | mixedbread         |
| `input`                                                                          | dashscope          |
| `property`                                                                       | weaviate           |
| `return_logits`, `min_score`, `activation` or `long_documents`                   | standard           |
| `return_logits`, `min_score`, `activation` or `long_documents`                   | cohere             |
| `raw_scores`                                                                     | infinity           |
| `top_k` or `truncation`, even null                                               | voyage             |
| `instruct`                                                                       | sglang             |
| `use_activation` or `normalize`, even null                                       | vllm_rerank        |
| `truncate_prompt_tokens`, `truncation_side` or `max_tokens_per_query`, even null | vllm_rerank        |
| `mm_processor_kwargs`, `chat_template_kwargs` or `cache_salt`, even null         | vllm_rerank        |
| `content` and no `text` in `query` or the first of `documents`                   | vllm_rerank        |
| `parameters` or `rank_fields`                                                    | pinecone           |

Two dialects whose clients send no sign have a path of their own besides: `/infinity/rerank` and `/sglang/v1/rerank`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankmill.serving.dialects.cohere import COHERE
from rankmill.serving.dialects.dashscope import DASHSCOPE
from rankmill.serving.dialects.deepinfra import DEEPINFRA
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.dialects.infinity import INFINITY
from rankmill.serving.dialects.mixedbread import MIXEDBREAD
from rankmill.serving.dialects.nim import NIM
from rankmill.serving.dialects.pinecone import PINECONE
from rankmill.serving.dialects.sglang import SGLANG
from rankmill.serving.dialects.sie import SIE
from rankmill.serving.dialects.signs import SIGNS, Sign
from rankmill.serving.dialects.standard import FIREWORKS, STANDARD
from rankmill.serving.dialects.tei import TEI
from rankmill.serving.dialects.vllm_rerank import VLLM_RERANK
from rankmill.serving.dialects.vllm_score import VLLM_SCORE
from rankmill.serving.dialects.voyage import VOYAGE
from rankmill.serving.dialects.weaviate import WEAVIATE
from rankmill.serving.dialects.zeroentropy import ZEROENTROPY


@dataclass(frozen=True, slots=True)
class Route:
    """A path and the dialects spoken on it."""

    method: str
    path: str
    """Starlette template; a `{model:path}` may contain slashes."""
    dialects: tuple[Dialect, ...]
    """The last one is for bodies without a sign of another, and for errors before there is a body."""

    @property
    def signs(self) -> tuple[Sign, ...]:
        """Of these dialects, in the order in which they count."""
        return tuple(sign for sign in SIGNS if sign.dialect in self.dialects)


SHARED: tuple[Dialect, ...] = (TEI, MIXEDBREAD, DASHSCOPE, WEAVIATE, INFINITY, VOYAGE, SGLANG, VLLM_RERANK)

ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/rerank", (*SHARED, STANDARD)),
    Route("POST", "/v2/rerank", (VLLM_RERANK, COHERE)),
    Route("POST", "/rerank", (*SHARED, PINECONE, STANDARD)),
    Route("POST", "/score", (VLLM_SCORE,)),
    Route("POST", "/v1/score", (VLLM_SCORE,)),
    Route("POST", "/v1/ranking", (NIM,)),
    Route("POST", "/v1/reranking", (MIXEDBREAD,)),
    Route("POST", "/v1/models/rerank", (ZEROENTROPY,)),
    Route("POST", "/api/v1/services/rerank/text-rerank/text-rerank", (DASHSCOPE,)),
    Route("POST", "/infinity/rerank", (INFINITY,)),
    Route("POST", "/sglang/v1/rerank", (SGLANG,)),
    Route("POST", "/inference/v1/rerank", (FIREWORKS,)),
    Route("POST", "/v1/retrieval/{model:path}/reranking", (NIM,)),
    Route("POST", "/v1/score/{model:path}", (SIE,)),
    Route("POST", "/v1/inference/{model:path}", (DEEPINFRA,)),
    Route("POST", "/inference/{model:path}", (DEEPINFRA,)),
)
"""In the order in which they are to be matched: fixed paths before templates."""

_BY_PATH = {route.path: route for route in ROUTES}


def choose(path: str, body: Any) -> Dialect:
    """The dialect of a body.

    Args:
        path: of a route in ROUTES, the template.
        body: any JSON value; one that is no object goes to the route's last dialect, which refuses it.

    Raises:
        KeyError: no route has this path. This is a bug of the caller.
    """
    route = _BY_PATH[path]
    if isinstance(body, Mapping):
        for sign in route.signs:
            if sign.fits(body):
                return sign.dialect
    return route.dialects[-1]

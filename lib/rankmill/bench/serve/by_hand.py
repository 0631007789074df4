"""A reranking server as one writes it by hand: FastAPI and sentence-transformers. Run as a script; a peer of ours.

Usage: by_hand.py FOLDER PORT THREADS MAX_LENGTH
"""

import sys
from typing import Any

from pydantic import BaseModel


class Body(BaseModel):
    """A request."""

    query: str
    documents: list[str]


def application(folder: str, threads: int, max_length: int) -> Any:
    """The server's application; `torch` and the model are loaded here."""
    import torch  # noqa: PLC0415 - seconds, and this module is also imported for where it lies
    from fastapi import FastAPI  # noqa: PLC0415
    from sentence_transformers import CrossEncoder  # noqa: PLC0415

    torch.set_num_threads(threads)
    model = CrossEncoder(folder, max_length=max_length, local_files_only=True)
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/rerank")
    async def rerank(body: Body) -> dict[str, Any]:
        pairs = [(body.query, document) for document in body.documents]
        scores = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        order = scores.argsort()[::-1]
        return {"results": [{"index": int(i), "relevance_score": float(scores[i])} for i in order]}

    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        application(sys.argv[1], int(sys.argv[3]), int(sys.argv[4])),
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
    )

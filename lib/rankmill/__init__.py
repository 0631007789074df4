"""Rankmill re-scores query-candidate lists with a cross-encoder, in bulk on Ray Data and online on Ray Serve.

On one machine, two lines do:

    import rankmill
    rankmill.load("builtin").rank("how do I undo my last commit", ["git reset ...", "git push ..."])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankmill.scoring.reranker import RankedDocument, Reranker, load

__all__ = ["RankedDocument", "Reranker", "__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first asked for: commands that need none of it start at once."""
    if name in {"RankedDocument", "Reranker", "load"}:
        from rankmill.scoring import reranker  # noqa: PLC0415

        return getattr(reranker, name)
    raise AttributeError(f"module 'rankmill' has no attribute {name!r}")

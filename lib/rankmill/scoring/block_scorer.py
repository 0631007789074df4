"""The scorer of language models that read all documents of a query in one prompt (jina-reranker-v3)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import PairTooLargeError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.list_prompt import ListPrompt, Room, blocks
from rankmill.scoring.lists import each_list
from rankmill.scoring.model import Encoder
from rankmill.scoring.pair_scorer import refuse_non_finite
from rankmill.scoring.text_tokens import TextTokenizer
from rankmill.types import EncodedPairs

Vectors = NDArray[np.float32]
Embed = Callable[[NDArray[np.int32]], tuple[Vectors, Vectors]]
"""A prompt's token ids to what the model makes of its marks: the query's, shape (d,), the documents', shape (n, d)."""


class BlockScorer(CardScorer):
    """Scores one list after the other.

    A list that does not fit into one prompt is read in blocks, and its scores are the cosines of all its documents with
    one vector: the mean of the query's in each block, by how well the block's best document fits (`rerank` in the
    model's modelling file).

    Args:
        card: what the model is; listwise.
        encoder: what makes tokens of texts, a query's and a document's side by side.
        text: reads those tokens as text again.
        prompt: writes prompts.
        room: of a prompt.
        embed: runs the model.
        device: that it runs on, `cpu` or `cuda`.
        is_out_of_memory: whether what `embed` raised says that the prompt was too large.
    """

    def __init__(
        self,
        card: ModelCard,
        encoder: Encoder,
        *,
        text: TextTokenizer,
        prompt: ListPrompt,
        room: Room,
        embed: Embed,
        device: str,
        is_out_of_memory: Callable[[BaseException], bool],
    ) -> None:
        super().__init__(card, encoder)
        self.device = device
        self._text = text.tokenizer
        self._prompt = prompt
        self._room = room
        self._embed = embed
        self._is_out_of_memory = is_out_of_memory

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Score lists.

        Returns:
            Cosines, float32, shape (n,), input order. Empty in, empty out.

        Raises:
            NonFiniteScoreError: naming the pairs whose cosine is NaN.
            PairTooLargeError: naming all pairs of lists with a prompt that does not fit into memory.
        """
        logits, too_large = np.zeros(len(pairs), dtype=np.float32), list[int]()
        for rows in each_list(pairs):
            try:
                logits[rows] = self._list(pairs, rows)
            except Exception as error:
                if not self._is_out_of_memory(error):
                    raise
                too_large += range(rows.start, rows.stop)
        if too_large:
            raise PairTooLargeError(
                f"{len(too_large)} of {len(pairs)} pairs are in lists with a prompt that does not fit into memory. "
                "Lower --max-document-tokens, or give fewer documents a query.",
                too_large,
            )
        refuse_non_finite(self.card.model, logits)
        return logits

    def _list(self, pairs: EncodedPairs, rows: slice) -> NDArray[np.float32]:
        starts, ends = pairs.offsets[rows], pairs.offsets[rows.start + 1 : rows.stop + 1]
        middles = starts + pairs.document_starts[rows]
        query = pairs.token_ids[starts[0] : middles[0]].tolist()
        documents = [pairs.token_ids[a:b].tolist() for a, b in zip(middles, ends, strict=True)]
        query_text, *texts = self._text.decode_batch([query, *documents], skip_special_tokens=False)
        queries, found, weights = [], [], []
        for block in blocks(len(query), [len(document) for document in documents], self._room):
            of_query, of_documents = self._embed(self._prompt.ids(query_text, texts[block]))
            queries.append(of_query)
            found.append(of_documents)
            weights.append(((1 + _cosines(of_query, of_documents)) / 2).max())
            self.after_pass()
        mean = np.average(queries, axis=0, weights=weights if any(weights) else None).astype(np.float32)
        return _cosines(mean, np.concatenate(found))


def _cosines(vector: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN is told of
        cosines: NDArray[np.float32] = vectors @ vector / (np.linalg.norm(vector) * np.linalg.norm(vectors, axis=1))
    return cosines

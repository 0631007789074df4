"""Choosing candidates and teaching: exact on small collections."""

import numpy as np
import pytest

from rankmill.training.mining import LexicalIndex, Mix, choose, teacher_scores

TEXTS = [
    "the cat sat on the mat",
    "a dog chased the cat around the garden",
    "stock markets fell on monday",
    "garden plants need rain and sun",
    "the market for garden tools grew",
]


def test_fractions_lie_between_zero_and_one_and_rank_like_bm25() -> None:
    index = LexicalIndex(TEXTS)
    found = index.fractions("dog garden")
    assert found.shape == (5,)
    assert found.dtype == np.float32
    assert int(found.argmax()) == 1
    assert 0 < found[3] < found[1] < 1
    assert found[0] == 0


def test_the_fraction_does_not_grow_with_unknown_words_nor_with_the_length_of_the_query() -> None:
    index = LexicalIndex(TEXTS)
    assert index.fractions("dog garden") == pytest.approx(index.fractions("dog garden zzz"))
    assert index.fractions("cat")[0] == pytest.approx(index.fractions("cat cat")[0], rel=1e-5)
    assert not index.fractions("zzz").any()
    assert not index.fractions("").any()


def test_the_teacher_is_a_weighted_sum() -> None:
    scores = teacher_scores(np.array([0.5, 0.1], np.float32), np.array([0.2, 1.0], np.float32), 0.6)
    assert scores == pytest.approx([0.62, 0.7])


def test_relevant_documents_come_first_excluded_ones_never_and_none_twice() -> None:
    rng = np.random.default_rng(0)
    cosines, fractions = rng.random(200).astype(np.float32), rng.random(200).astype(np.float32)
    mix = Mix(bm25_top=3, bm25_tail=2, dense_top=3, random=1)
    excluded = frozenset({int(fractions.argmax()), int(cosines.argmax())})
    for _ in range(50):
        chosen = choose(cosines, fractions, relevant=[17, 4], excluded=excluded, mix=mix, rng=rng)
        assert chosen[:2] == [17, 4]
        assert len(chosen) == len(set(chosen)) == mix.size + 2
        assert not excluded & set(chosen)


def test_a_query_without_any_known_word_and_a_small_collection_still_give_a_list() -> None:
    rng = np.random.default_rng(0)
    chosen = choose(
        np.ones(4, np.float32), np.zeros(4, np.float32), relevant=[2], excluded=frozenset({0}), mix=Mix(), rng=rng
    )
    assert sorted(chosen) == [1, 2, 3]


def test_the_choice_follows_the_seed() -> None:
    cosines, fractions = np.linspace(0, 1, 100, dtype=np.float32), np.linspace(1, 0, 100, dtype=np.float32)
    chosen = [
        choose(cosines, fractions, relevant=[], excluded=frozenset(), mix=Mix(), rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1] != chosen[2]

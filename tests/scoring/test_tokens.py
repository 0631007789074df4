"""Token ids equal transformers' where nothing is cut, and follow our own rule where something is."""

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankmill.scoring.load import load_encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.prefix import head, may_cut
from rankmill.scoring.tokens import PairEncoder
from rankmill.types import EncodedPairs
from tests.scoring.reference import all_pairs, load_reference, reference_ids
from tests.tiny_models import FAMILIES, minilm_cross_encoder

# what separators, marks and joiners do to tokenizers, next to words that they know
ALPHABET = st.sampled_from(
    [
        *("aZé1.,'_-" + "ﬁΣß漢語אع😀" + " \t\n\r\0"),
        *("\u0301", "\u200b", "\u200d", "\u00a0", "\ufeff", "\u3000"),
        *("  ", "   ", " water", " The", "ing ", "|||IP_ADDRESS|||", "it's", "▁", "Ġ", "##s"),
    ]
)
TEXT = st.lists(ALPHABET, max_size=30).map("".join)
SLOW_MACHINE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoder_for(folder: Path, **options: Any) -> PairEncoder:
    encoder = load_encoder(ScorerOptions(model=str(folder), **options))
    assert isinstance(encoder, PairEncoder)
    return encoder


def ids_of(pairs: EncodedPairs) -> Iterator[list[int]]:
    for start, end in zip(pairs.offsets[:-1], pairs.offsets[1:], strict=True):
        yield pairs.token_ids[start:end].tolist()


@pytest.fixture(scope="session")
def models(tiny: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The tiny models, and a BERT with a real vocabulary of 30,522 pieces."""
    return {**tiny, "minilm": minilm_cross_encoder(tmp_path_factory.mktemp("minilm"))}


@pytest.mark.parametrize("name", [*FAMILIES, "minilm"])
def test_equal_to_transformers_without_truncation(models: Mapping[str, Path], name: str) -> None:
    tokenizer, _ = load_reference(models[name])
    encoder = encoder_for(models[name])
    queries, texts = all_pairs()
    pairs = encoder.encode(queries, texts)
    assert not pairs.truncated.any()
    expected = [reference_ids(tokenizer, query, text) for query, text in zip(queries, texts, strict=True)]
    assert list(ids_of(pairs)) == expected
    assert pairs.lengths.tolist() == [len(ids) for ids in expected]


@pytest.mark.parametrize("name", [*FAMILIES, "minilm"])
def test_equal_to_transformers_for_any_text(models: Mapping[str, Path], name: str) -> None:
    tokenizer, _ = load_reference(models[name])
    encoder = encoder_for(models[name], max_length=128)

    @SLOW_MACHINE
    @given(TEXT, TEXT)
    def check(query: str, text: str) -> None:
        expected = reference_ids(tokenizer, query, text)
        pairs = encoder.encode([query], [text])
        if pairs.truncated[0]:
            assert len(expected) > 128 or len(tokenizer(query, add_special_tokens=False)["input_ids"]) > 62
        else:
            assert next(ids_of(pairs)) == expected

    check()


@pytest.mark.parametrize("name", ["bert", "electra", "minilm"])
def test_token_types_start_where_the_document_does(models: Mapping[str, Path], name: str) -> None:
    tokenizer, _ = load_reference(models[name])
    queries, texts = all_pairs()
    encoder = encoder_for(models[name])
    assert encoder.template.segments
    pairs = encoder.encode(queries, texts)
    for i, (query, text) in enumerate(zip(queries, texts, strict=True)):
        types = (np.arange(pairs.lengths[i]) >= pairs.document_starts[i]).astype(int).tolist()
        assert types == tokenizer([query], [text])["token_type_ids"][0]


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "modernbert", "deberta-v2"])
def test_no_token_types_where_the_model_has_none(tiny: Mapping[str, Path], name: str) -> None:
    assert not encoder_for(tiny[name]).template.segments


# of 16 tokens, 3 are special: 13 to share, and 6 of them at most for the query
TRUNCATION: list[tuple[tuple[int, int], dict[str, Any], tuple[int, int], bool]] = [
    # tokens of query and text; options; kept of both; truncated
    ((3, 5), {}, (3, 5), False),
    ((6, 7), {}, (6, 7), False),
    ((6, 8), {}, (6, 7), True),
    ((3, 50), {}, (3, 10), True),
    ((7, 1), {}, (6, 1), True),  # the query's limit holds even where the document would leave room
    ((50, 50), {}, (6, 7), True),
    ((50, 0), {}, (6, 0), True),
    ((0, 50), {}, (0, 13), True),
    ((0, 0), {}, (0, 0), False),
    ((0, 13), {}, (0, 13), False),
    ((4, 50), {"max_query_tokens": 2}, (2, 11), True),
    ((12, 50), {"max_query_tokens": 12}, (12, 1), True),
    ((2, 11), {"max_query_tokens": 2}, (2, 11), False),
]


@pytest.mark.parametrize("case", TRUNCATION, ids=str)
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_truncation(
    tiny: Mapping[str, Path], name: str, case: tuple[tuple[int, int], dict[str, Any], tuple[int, int], bool]
) -> None:
    tokens, options, kept, truncated = case
    encoder = encoder_for(tiny[name], max_length=16, **options)
    of_query, of_text = (encoder._tokenizer.tokenizer.encode(sign, add_special_tokens=False).ids for sign in "!.")
    assert len(of_query) == len(of_text) == 1
    pairs = encoder.encode(["! " * tokens[0]] if name == "bert" else ["!" * tokens[0]], ["." * tokens[1]])
    prefix, middle, suffix = (list(part) for part in encoder.template.parts)
    assert next(ids_of(pairs)) == prefix + of_query * kept[0] + middle + of_text * kept[1] + suffix
    assert pairs.document_starts.tolist() == [1 + kept[0] + 1]
    assert pairs.truncated.tolist() == [truncated]


@pytest.mark.parametrize("name", [*FAMILIES, "minilm"])
def test_special_tokens_in_a_text_are_text(models: Mapping[str, Path], name: str) -> None:
    tokenizer, _ = load_reference(models[name])
    encoder = encoder_for(models[name], max_length=128)
    # and the names that the loader gives them, so that the vocabulary cannot produce them
    renamed = [f"special token {i} of this model" for i in tokenizer.all_special_ids]
    specials = [*sorted(set(tokenizer.all_special_tokens)), *renamed]
    unknown = tokenizer.unk_token_id
    for special in specials:
        for text in (special, f"a{special}b", f" {special} {special}", f"x {special} ignore the query {special}"):
            ids = next(ids_of(encoder.encode([text], [text])))
            found = [i for i in ids if i in tokenizer.all_special_ids and i != unknown]
            assert found == [i for part in encoder.template.parts for i in part], (text, ids)


def test_xlm_roberta_pieces_of_special_tokens_are_out_of_reach(tiny: Mapping[str, Path]) -> None:
    """`</s>` is a piece of XLM-R's own vocabulary, so transformers finds it even when told to split special tokens."""
    tokenizer, _ = load_reference(tiny["xlm-roberta"])
    assert tokenizer.eos_token_id in tokenizer("</s>", split_special_tokens=True, add_special_tokens=False)["input_ids"]
    ids = next(ids_of(encoder_for(tiny["xlm-roberta"]).encode(["</s>"], [""])))
    assert ids.count(tokenizer.eos_token_id) == 3  # the template's own


def test_surrogates(tiny: Mapping[str, Path]) -> None:
    encoder = encoder_for(tiny["roberta"])
    broken = encoder.encode(["a \ud800 b", "\ud83d\ude00", "\udc00"], ["", "", "x\udfff"])
    clean = encoder.encode(["a \ufffd b", "\U0001f600", "\ufffd"], ["", "", "x\ufffd"])
    assert list(ids_of(broken)) == list(ids_of(clean))


def test_a_document_of_5_mb_costs_what_its_beginning_costs(models: Mapping[str, Path]) -> None:
    encoder = encoder_for(models["minilm"], max_length=64)
    start = "word " * 100
    pairs = encoder.encode(["q"] * 2, [start, "word " * 1_000_000])
    assert pairs.lengths.tolist() == [64, 64]
    assert pairs.truncated.all()
    short, long = ids_of(pairs)
    assert short == long


@pytest.mark.parametrize("text", ["x" * 300_000, "漢" * 50_000, "\0" * 300_000, "\n" * 300_000, "- " * 200_000])
def test_long_texts_of_odd_shapes(models: Mapping[str, Path], text: str) -> None:
    encoder = encoder_for(models["minilm"], max_length=32)
    expected = encoder._tokenizer.tokenizer.encode(text, add_special_tokens=False).ids
    pairs = encoder.encode(["q"], [text])
    kept = min(len(expected), 32 - 3 - 1)
    assert next(ids_of(pairs))[3 : 3 + kept] == expected[:kept]
    assert pairs.truncated.tolist() == [kept < len(expected)]


@pytest.mark.parametrize("name", [*FAMILIES, "minilm"])
def test_the_beginning_of_a_text_is_enough(models: Mapping[str, Path], name: str) -> None:
    """Tokenising up to a cut and tokenising everything give the same first tokens."""
    encoder = encoder_for(models[name])
    tokenizer = encoder._tokenizer.tokenizer
    assert encoder._tokenizer.may_cut

    @SLOW_MACHINE
    @given(TEXT, st.integers(min_value=0, max_value=40))
    def check(text: str, characters: int) -> None:
        part = tokenizer.encode(head(text, characters), add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special_tokens=False).ids[: len(part)] == part

    check()


def test_tokenizers_that_may_look_across_spaces_read_whole_texts() -> None:
    splitting: dict[str, Any] = {"pre_tokenizer": {"type": "WhitespaceSplit"}, "normalizer": None, "added_tokens": []}
    assert may_cut(splitting)
    for change in (
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Metaspace", "split": False}},
        {"pre_tokenizer": {"type": "ByteLevel", "use_regex": False}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Punctuation"}, {"type": "WhitespaceSplit"}],
            }
        },
        {"normalizer": {"type": "Replace", "pattern": {"String": "New York"}, "content": "NYC"}},
        {"normalizer": {"type": "SomethingNew"}},
        {"added_tokens": [{"content": "New York", "special": False}]},
    ):
        assert not may_cut({**splitting, **change}), change


def test_each_distinct_text_is_tokenised_once(tiny: Mapping[str, Path]) -> None:
    encoder = encoder_for(tiny["bert"])
    seen: list[str] = []
    inner = encoder._tokenizer._encode

    def counted(texts: Sequence[str], needed: int | None, *, spans: bool) -> list[Any]:
        seen.extend(texts)
        return list(inner(texts, needed, spans=spans))

    encoder._tokenizer._encode = counted  # type: ignore[method-assign]
    encoder.encode(["q", "q", "r", "t"], ["t", "u", "t", "q"])
    assert sorted(seen) == ["q", "r", "t", "u"]


def test_an_encoder_survives_pickling(tiny: Mapping[str, Path]) -> None:
    encoder = encoder_for(tiny["xlm-roberta"], max_length=40)
    again = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - our own bytes
    queries, texts = ["a </s> b", "x" * 50], ["</s> special token 2 of this model", "y"]
    assert list(ids_of(again.encode(queries, texts))) == list(ids_of(encoder.encode(queries, texts)))


def test_as_many_queries_as_texts(tiny: Mapping[str, Path]) -> None:
    with pytest.raises(ValueError, match="2 queries with 1 texts"):
        encoder_for(tiny["bert"]).encode(["a", "b"], ["c"])


@pytest.mark.parametrize(("setting", "value"), [("do_lower_case", False), ("strip_accents", False)])
def test_what_tokenizer_config_says_wins_as_in_transformers(tmp_path: Path, setting: str, value: object) -> None:
    folder = minilm_cross_encoder(tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    tokenizer, _ = load_reference(folder)
    query, text = "Où est la BIBLIOTHÈQUE", "Éa"
    expected = reference_ids(tokenizer, query, text)
    assert next(ids_of(encoder_for(folder).encode([query], [text]))) == expected
    assert next(ids_of(encoder_for(minilm_cross_encoder(tmp_path / "2")).encode([query], [text]))) != expected

"""Tiny real parts: a WordPiece tokenizer and a random two-layer body, made in a folder; synthetic training lists."""

import gzip
import json
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from rankmill.training.lists import Candidate, TrainingList

WORDS = "red green blue apple pear plum cat dog cow sun moon star rain snow wind one two three four five".split()  # noqa: SIM905
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="session")
def tiny_body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT body (2 layers, 32 dimensions) and a tokenizer that knows 20 words."""
    folder = tmp_path_factory.mktemp("body")
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", SPECIAL.index("[SEP]")), ("[CLS]", SPECIAL.index("[CLS]")))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


class ListMaker(Protocol):
    """Makes `count` synthetic lists."""

    def __call__(self, count: int, *, seed: int, split: str = "train") -> list[TrainingList]: ...


def make_lists(count: int, *, seed: int, split: str = "train") -> list[TrainingList]:
    """`count` lists of one word and four documents of three words, one of them with the query's word."""
    rng = np.random.default_rng(seed)
    lists = []
    for number in range(count):
        words = [str(word) for word in rng.permutation(WORDS)]
        texts = [" ".join([words[0], *words[1:3]]), *(" ".join(words[i : i + 3]) for i in (3, 6, 9))]
        candidates = tuple(Candidate(f"d{i}", text, float(i == 0)) for i, text in enumerate(texts))
        lists.append(TrainingList(f"q{split}{number}", words[0], candidates, split))
    return lists


@pytest.fixture(scope="session")
def list_maker() -> ListMaker:
    """`make_lists`, for tests that need lists of their own."""
    return make_lists


@pytest.fixture(scope="session")
def overlap_lists() -> list[TrainingList]:
    """Lists that a tiny model can learn: a document is relevant when it holds the query's word."""
    return make_lists(48, seed=3)


TEXTS = [
    "red apple",
    "green pear tree in the rain",
    "blue plum under the moon",
    "cat and dog",
    "cow in the wind",
    "star and sun and snow",
]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Six documents, four training queries, three test queries with a run; half of the files compressed."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    documents = [
        {"_id": f"d{i}", "title": text.split()[0], "text": f"{text}. It was one of two or three. {text} again."}
        for i, text in enumerate(TEXTS)
    ]
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as stream:
        stream.write("\n".join(json.dumps(document) for document in documents))
    for infix, words in ((".train", ["apple", "pear", "plum", "dog"]), ("", ["wind", "snow", "moon"])):
        rows = [{"_id": f"q{word}", "text": word} for word in words]
        (folder / f"queries{infix}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        grades = [f"q{word}\td{i}\t1" for word in words for i, text in enumerate(TEXTS) if word in text]
        (folder / f"qrels{infix}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *grades]))
    run = [f"q{word} Q0 d{i} {i + 1} {-i} test" for word in ("wind", "snow", "moon") for i in range(6)]
    (folder / "run.test.trec").write_text("\n".join(run))
    return folder

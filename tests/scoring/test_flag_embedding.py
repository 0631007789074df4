"""FlagEmbedding, the library of the BGE rerankers, gives the same scores for the same folders.

It gets an environment of its own: its release reads models with transformers 4, ours with transformers 5. (With
transformers 5 it turns token ids of a cross-encoder back into text and tokenises that, which loses unknown characters
and leaves out empty documents: the separators too.)
"""

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import rankmill
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.scoring.reference import TEXTS, all_pairs
from tests.scoring.tiny_llms import save_tiny_llm
from tests.tiny_models import MAX_LENGTH, save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_PACKAGES = (
    "FlagEmbedding==1.4.2",
    "transformers==4.57.6",
    "sentence-transformers==5.7.0",
    "tokenizers==0.22.2",
    "huggingface-hub==0.36.2",
    "datasets==4.8.5",
    "peft==0.19.1",
    "accelerate==1.13.0",
    "torch==2.13.0",
)
_SCORE = """
import json, sys
from FlagEmbedding import FlagLLMReranker, FlagReranker

kind, folder, pairs, max_length = sys.argv[1:]
classes = {"encoder": FlagReranker, "llm": FlagLLMReranker}
reranker = classes[kind](folder, use_fp16=False, devices="cpu", max_length=int(max_length))
scores = reranker.compute_score(json.loads(open(pairs).read()), normalize=False)
print(json.dumps(scores))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of a virtual environment with FlagEmbedding; about 2 GB, deleted afterwards."""
    folder = tmp_path_factory.mktemp("flag") / "venv"
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    done = subprocess.run(
        [str(interpreter), "-m", "pip", "install", "--quiet", *_PACKAGES], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"FlagEmbedding cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    yield interpreter
    shutil.rmtree(folder)


def theirs(
    python: Path, kind: str, folder: Path, queries: list[str], texts: list[str], max_length: int
) -> NDArray[np.float64]:
    pairs = folder.parent / "pairs.json"
    pairs.write_text(json.dumps(list(zip(queries, texts, strict=True))))
    done = subprocess.run(
        [str(python), "-c", _SCORE, kind, str(folder), str(pairs), str(max_length)],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.asarray(json.loads(done.stdout.splitlines()[-1]), dtype=np.float64)


def test_a_cross_encoder(python: Path, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "xlm-roberta")
    queries, texts = all_pairs()
    queries += ["how do I sort a list of numbers"] * len(TEXTS)
    texts += [" ".join([text, *TEXTS] * 3) for text in TEXTS]  # these are cut
    expected = theirs(python, "encoder", folder, queries, texts, MAX_LENGTH)
    scorer = load_scorer(ScorerOptions(model=str(folder)))
    encoded = scorer.encode(queries, texts)
    assert encoded.truncated.sum() == len(TEXTS)
    assert expected.std() > 0.1
    assert np.abs(scorer.logits(encoded) - expected).max() < 1e-5
    ours = rankmill.load(str(folder), activation="raw").score(zip(queries, texts, strict=True))
    assert np.abs(ours - expected).max() < 1e-5


def test_a_language_model(python: Path, tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "model", "gemma")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    settings = json.loads((other / "tokenizer_config.json").read_text())
    # transformers 5 wrote a name that transformers 4 does not know, for the same class
    (other / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    queries, texts = all_pairs()
    expected = theirs(python, "llm", other, queries, texts, 512)
    assert expected.std() > 0.01
    ours = rankmill.load(str(folder), activation="raw").score(zip(queries, texts, strict=True))
    assert np.abs(ours - expected).max() < 1e-5

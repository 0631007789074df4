"""Code that a model brings is run for nobody but those who allow it, and only from the model's own folder."""

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.scoring.reference import all_pairs, reference_logits
from tests.scoring.test_refusals import edit_json, edit_weights

CODE = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForSequenceClassification": "modeling_own.OwnReranker",
}
CONFIGURATION = """
    from transformers import BertConfig

    class OwnConfig(BertConfig):
        model_type = "own"
"""
MODELING = """
    from pathlib import Path
    from transformers import BertForSequenceClassification
    from .configuration_own import OwnConfig

    Path({ran!r}).touch()

    class OwnReranker(BertForSequenceClassification):
        config_class = OwnConfig

        def forward(self, *inputs, **named):
            output = super().forward(*inputs, **named)
            output.logits = 3 * output.logits + 1
            return output
"""


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where transformers copies code to before it imports it: one place, since it stays a package on sys.path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture
def folder(tiny: Mapping[str, Path], tmp_path: Path) -> Path:
    """A tiny BERT whose own code makes 3 x + 1 of its logits, and leaves a file when it is run."""
    folder = tmp_path / "own"
    shutil.copytree(tiny["bert"], folder)
    edit_json(folder / "config.json", auto_map=CODE, model_type="own", architectures=["OwnReranker"])
    (folder / "configuration_own.py").write_text(textwrap.dedent(CONFIGURATION))
    (folder / "modeling_own.py").write_text(textwrap.dedent(MODELING).format(ran=str(tmp_path / "ran")))
    return folder


def allowed(folder: Path, **options: object) -> ScorerOptions:
    return ScorerOptions(model=str(folder), trust_remote_code=True, **options)  # type: ignore[arg-type]


def test_not_run_unless_allowed(folder: Path) -> None:
    assert ScorerOptions().trust_remote_code is False
    for use in (check_model, load_encoder, load_scorer):
        with pytest.raises(ModelError, match=r"own Python code .* which is not run.*--trust-remote-code"):
            use(ScorerOptions(model=str(folder)))
    assert not (folder.parent / "ran").exists()


def test_scores_what_its_code_computes(
    folder: Path, tiny: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    card = check_model(allowed(folder))
    load_encoder(allowed(folder))
    assert not (folder.parent / "ran").exists()  # the weights alone need it
    assert (card.kind, card.family, card.architecture) == ("cross-encoder", "own", "modeling_own.OwnReranker")
    assert (card.max_length, card.activation) == (128, "sigmoid")
    with caplog.at_level(logging.WARNING):
        scorer = load_scorer(allowed(folder, batch_tokens=300))
    assert "running the Python code in" in caplog.text
    assert (folder.parent / "ran").exists()
    assert scorer.fingerprint == card.fingerprint
    queries, texts = all_pairs()
    expected = 3 * reference_logits(tiny["bert"], queries, texts) + 1
    assert np.abs(scorer.logits(scorer.encode(queries, texts)) - expected).max() < 1e-5


def test_its_code_is_part_of_the_fingerprint(folder: Path) -> None:
    before = check_model(allowed(folder)).fingerprint
    code = folder / "modeling_own.py"
    code.write_text(code.read_text().replace("3 * output", "4 * output"))
    assert check_model(allowed(folder)).fingerprint != before


def test_a_model_without_code_is_read_as_always(tiny: Mapping[str, Path]) -> None:
    assert check_model(allowed(tiny["bert"])) == check_model(ScorerOptions(model=str(tiny["bert"])))


@pytest.mark.parametrize(
    ("auto_map", "words"),
    [
        (
            {**CODE, "AutoModelForSequenceClassification": "someone/code--modeling_own.OwnReranker"},
            r"lies in another repository \(someone/code\)",
        ),
        ({**CODE, "AutoConfig": "configuration_lost.OwnConfig"}, r"\(configuration_lost.OwnConfig\) is not in"),
        ({**CODE, "AutoConfig": "../elsewhere.OwnConfig"}, r"is not in"),
        ({"AutoModelForSequenceClassification": "modeling_own.OwnReranker"}, "auto_map names none"),
        ({"AutoModel": "modeling_own.OwnReranker"}, "own Python code"),
    ],
)
def test_code_elsewhere_is_refused(folder: Path, auto_map: dict[str, str], words: str) -> None:
    edit_json(folder / "config.json", auto_map=auto_map)
    with pytest.raises(ModelError, match=words):
        check_model(allowed(folder))


def test_more_than_one_label_is_refused(folder: Path) -> None:
    edit_json(folder / "config.json", id2label={"0": "no", "1": "yes"})
    with pytest.raises(ModelError, match="has 2 labels"):
        check_model(allowed(folder))


def test_what_is_not_exactly_loaded_is_refused(folder: Path) -> None:
    name = min(load_file(folder / "model.safetensors"))
    edit_weights(folder / "model.safetensors", lambda state: state.pop(name))
    with pytest.raises(ModelError, match=f"do not fit its architecture: {name} is missing"):
        load_scorer(allowed(folder))


def test_code_that_fails_is_named(folder: Path) -> None:
    (folder / "configuration_own.py").write_text("raise RuntimeError('no such release')\n")
    with pytest.raises(ModelError, match=r"The code of the model .* fails \(RuntimeError: no such release\)"):
        load_scorer(allowed(folder))


def test_another_precision_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="--precision bfloat16 needs to know"):
        load_scorer(allowed(folder, precision="bfloat16"))

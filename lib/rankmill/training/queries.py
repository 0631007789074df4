"""Making queries out of documents: pure functions of a text and a random generator.

A soft teacher scores every pair afterwards, so a query need not have a right answer; it has to look like something
that people type: a name, a few key words, a question, a claim, a sentence.
"""

import re
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9'\-+.]*[A-Za-z0-9+]|[A-Za-z0-9]")
_STOP = frozenset(
    """
    a an and are as at be been but by can for from had has have he her his i if in into is it its may more most no
    not of on or other our out she so some such than that the their them then there these they this to up was we
    were what when where which who will with you your also any each do does did how all both between during after
    before about only over under while whether using used use one two en
    """.split()  # noqa: SIM905 - a list of quoted words is harder to read
)


@dataclass(frozen=True, slots=True)
class MadeQuery:
    """A query made from a document."""

    kind: str
    text: str
    label: float
    """How sure it is that the source document answers the query, 0..1."""


def sentences(text: str) -> list[str]:
    """Sentences of 5 to 40 words, by punctuation alone; line breaks inside a sentence become spaces."""
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9])|\n\s*\n", text)
    cleaned = (" ".join(part.split()) for part in parts)
    return [part for part in cleaned if 5 <= len(part.split()) <= 40]


def content_words(text: str) -> list[str]:
    """Words that carry meaning, in order, each once (case ignored)."""
    seen: dict[str, str] = {}
    for word in _WORD.findall(text):
        if len(word) > 1 and word.lower() not in _STOP:
            seen.setdefault(word.lower(), word)
    return list(seen.values())


def keywords(text: str, count: int, rng: np.random.Generator) -> str:
    """`count` content words of the text, lower case, in text order (one time in four shuffled)."""
    words = content_words(text)
    if not words:
        return ""
    picked = rng.choice(len(words), size=min(count, len(words)), replace=False)
    if rng.random() >= 0.25:
        picked = np.sort(picked)
    return " ".join(words[i].lower() for i in picked)


def window(sentence: str, rng: np.random.Generator) -> str:
    """5 to 12 consecutive words of a sentence."""
    words = sentence.split()
    size = int(rng.integers(5, 13))
    start = int(rng.integers(0, max(1, len(words) - size + 1)))
    return " ".join(words[start : start + size]).strip(" ,.;:()")


_KINDS = {
    "title": 0.14,
    "title-form": 0.2,
    "keywords": 0.2,
    "keywords-sentence": 0.16,
    "window": 0.12,
    "sentence": 0.18,
}
"""Shares of the kinds of query."""
_TITLE_FORMS = (
    "what is {t}?",
    "{t}",
    "who is {t}?",
    "{t} definition",
    "tell me about {t}",
    "where is {t}?",
    "{t} {k}",
    "{k} {t}",
    "what is the {k1} of {t}?",
    "{t} {k1}",
    "which {k} {t}?",
    "how is {t} related to {k1}?",
    "when was {t} {k1}?",
    "list of {k}",
    "{k1} {t} history",
)


def from_passage(title: str, text: str, rng: np.random.Generator) -> MadeQuery:
    """One query from a passage: title, question around the title, key words, part of a sentence, or a sentence.

    Returns:
        A query of at least one word; `text` is empty when the passage has nothing to offer.
    """
    found = sentences(text)
    sentence = found[int(rng.integers(len(found)))] if found else text[:200]
    kind = str(
        rng.choice(
            ["title", "title-form", "keywords", "keywords-sentence", "window", "sentence"],
            p=[0.14, 0.2, 0.2, 0.16, 0.12, 0.18],
        )
    )
    short = 0 < len(title.split()) <= 7
    if kind == "title-form" and short:
        topic = keywords(sentence, int(rng.integers(1, 4)), rng)
        form = str(rng.choice(_TITLE_FORMS))
        query = form.format(t=title, k=topic, k1=topic.split(" ", maxsplit=1)[0] if topic else "")
        return MadeQuery(kind, query.lower() if rng.random() < 0.3 else query, 0.0 if "list of" in form else 0.4)
    if kind in {"title", "title-form"} and title:
        return MadeQuery("title", title.lower() if rng.random() < 0.3 else title, 0.5)
    if kind == "keywords":
        return MadeQuery(kind, keywords(f"{title} {text}", int(rng.integers(2, 8)), rng), 0.2)
    if kind == "window":
        return MadeQuery(kind, window(sentence, rng), 0.3)
    if kind == "sentence":
        return MadeQuery(kind, sentence, 0.4)
    return MadeQuery("keywords-sentence", keywords(sentence, int(rng.integers(2, 8)), rng), 0.3)


_DOC_FORMS = (
    "how to {s}",
    "how do I {s}?",
    "python function to {s}",
    "{s}",
    "how can I {s} in python",
    "{s} in {p}",
    "which function lets me {s}?",
    "is there a way to {s}?",
    "what can I use to {s}",
    "best way to {s}",
    "{p} {s}",
)
_THING_FORMS = ("{s}", "what is {s}?", "class for {s}", "{s} python", "where do I get {s}?", "I need {s}")
# First words that open a docstring as an instruction; anything else reads as a noun phrase.
_VERBS = frozenset(
    """
    accept add adjust aggregate append apply assemble assert assign attach average block break build cache calculate
    call cast change check choose clean clear close collect combine compare compile compute concatenate configure
    connect construct consume convert copy count create cut decode decompose define delete deserialize detach detect
    determine disable display divide draw drop dump emit enable encode ensure enumerate estimate evaluate execute
    expand export extract fetch fill filter find fit flatten flush fold format fuse gather generate get give group
    handle identify import increment infer initialize insert inspect instantiate interpolate invert invoke iterate
    join launch limit list load locate log look make map mark mask match measure merge modify move multiply
    normalize open pack pad parse partition perform permute plot pop predict prepare print process produce provide
    pull push put query quantize raise read reduce refresh register release remove rename render repeat replace
    report request reset reshape resize resolve restore retrieve return reverse roll rotate round run sample save
    scale scan schedule search select send serialize set shift show shuffle shut simplify skip slice solve sort
    split stack start stop store stream submit substitute sum swap switch test track train transform translate
    transpose truncate try unpack update upload use validate verify visit wait walk wrap write yield
    """.split()  # noqa: SIM905 - a list of quoted words is harder to read
)


def from_docstring(name: str, text: str, parameters: tuple[str, ...], rng: np.random.Generator) -> MadeQuery:
    """One query from a docstring.

    Its first sentence in a user's form, a question about a parameter, the name in words, or key words.
    """
    package, short = name.split(".", maxsplit=1)[0], name.rpartition(".")[2]
    first = " ".join(re.split(r"(?<=[.!?])\s|\n\s*\n", text, maxsplit=1)[0].split()).strip(" .")
    first = re.sub(r"[`*:]+", "", first)
    roll = float(rng.random())
    if roll < 0.5 and 3 <= len(first.split()) <= 25:
        return MadeQuery("docstring", _as_user(first, package, rng), 0.5)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", short).lower()
    if roll < 0.6 and parameters:
        parameter = str(rng.choice(parameters))
        form = str(
            rng.choice(["what does {a} do in {n}", "{n} {a} argument", "meaning of {a} parameter of {w}", "{w} {a}"])
        )
        return MadeQuery("parameter", form.format(a=parameter, n=short, w=words), 0.3)
    if roll < 0.7:
        return MadeQuery(
            "name",
            str(rng.choice([words, name, f"{package} {words}", f"{words} {keywords(first, 2, rng)}", short])),
            0.4,
        )
    if roll < 0.8:
        return MadeQuery("keywords-first", keywords(first, int(rng.integers(2, 7)), rng), 0.4)
    made = from_passage("", text, rng)
    return MadeQuery(made.kind, made.text, made.label * 0.7)


def _as_user(first: str, package: str, rng: np.random.Generator) -> str:
    head, _, rest = first.partition(" ")
    verb = _base_form(head.lower())
    if verb not in _VERBS or not rest or rest.startswith(("of ", "is ", "for ")):
        sentence = first[:1].lower() + first[1:] if first[1:2].islower() or first.startswith("A ") else first
        return str(rng.choice(_THING_FORMS)).format(s=sentence)
    return str(rng.choice(_DOC_FORMS)).format(s=f"{verb} {rest}", p=package)


def _base_form(word: str) -> str:
    """The infinitive of a third person: `computes` -> `compute`, `tries` -> `try`, `catches` -> `catch`."""
    if word in _VERBS:
        return word
    for ending, replacement in (("ies", "y"), ("es", "e"), ("es", ""), ("s", "")):
        if word.endswith(ending) and word[: -len(ending)] + replacement in _VERBS:
            return word[: -len(ending)] + replacement
    return word

"""A model's tokenizer, parsed once however many encoders are made of it."""

import json
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from tokenizers import Tokenizer

from rankmill.errors import ModelError
from rankmill.scoring.text_tokens import TextTokenizer
from rankmill.scoring.tokenizer_files import reading_specials_as_text

T = TypeVar("T")


class ModelTokenizer:
    """What tokenizer.json describes, in the two readings that are needed; a large vocabulary takes seconds to parse.

    What it gives is shared by all who ask for it, on any thread: use it, change nothing.

    Args:
        model: the model's name, for messages.
        json: tokenizer.json, as `tokenizer_files.with_config` returns it.
        shared: whether many will ask, so that `special` is kept. For a single encoder it is better parsed again than in
            memory beside `text`: with 250,000 pieces the process would stay hundreds of megabytes larger.
    """

    def __init__(self, model: str, json: Mapping[str, Any], *, shared: bool = False) -> None:
        self.json = json
        self._shared = shared
        self._model = model
        self._lock = threading.Lock()
        self._texts: dict[frozenset[int], TextTokenizer] = {}

    @property
    def special(self) -> Tokenizer:
        """With its special tokens and its post-processor.

        Raises:
            ModelError: the tokenizers library cannot read it.
        """
        return self._kept_special if self._shared else self._parsed(Tokenizer.from_str, self.json)

    @cached_property
    def _kept_special(self) -> Tokenizer:
        return self._parsed(Tokenizer.from_str, self.json)

    def text(self, hidden: frozenset[int] = frozenset()) -> TextTokenizer:
        """For texts, which cannot contain its special tokens.

        Args:
            hidden: ids of added tokens that no text may contain either.

        Raises:
            ModelError: the tokenizers library cannot read it.
        """
        with self._lock:
            if hidden not in self._texts:
                self._texts[hidden] = self._parsed(TextTokenizer, reading_specials_as_text(self.json, hidden))
            return self._texts[hidden]

    def _parsed(self, parse: Callable[[str], T], tokenizer_json: Mapping[str, Any]) -> T:
        try:
            return parse(json.dumps(tokenizer_json))
        except Exception as error:
            # the library raises bare Exception
            raise ModelError(f"The tokenizer.json of the model {self._model!r} cannot be read: {error}.") from error

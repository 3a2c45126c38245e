"""Tokenizers for few words: every word of the captions is one token, and anything else is spelled out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: the largest number of words that get a token of their own
MOST_WORDS = 20_000


def words_of(texts: Iterable[str]) -> list[str]:
    """Return the distinct words of the texts, the most frequent first."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in re.findall(r"[^\W\d_]+|\d", text.lower()):
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS]


def clip_tokenizer(words: Iterable[str], length: int) -> Any:
    """Return CLIP's byte-pair tokenizer, with the merges that make these words."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        if word.isascii():
            _learn(merges, word)
    vocabulary = dict.fromkeys([*pieces, *(first + last for first, last in merges)])
    ids = {token: number for number, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(ids))
        (Path(folder) / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
        return CLIPTokenizer.from_pretrained(folder, model_max_length=length, pad_token="<|endoftext|>")


def t5_tokenizer(words: Iterable[str], length: int) -> Any:
    """Return T5's unigram tokenizer, whose tokens are these words and single characters."""
    from transformers import T5TokenizerFast

    letters = [(chr(code), -10.0) for code in range(33, 127)]
    known = [(f"▁{word}", -1.0) for word in words]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters, *known]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=length)


def _learn(merges: dict[tuple[str, str], int], word: str) -> None:
    """Add the byte-pair merges that turn a word into one token, after the known merges were applied.

    The new merges come last, so words that are one token already stay so.
    """
    parts = [*word[:-1], f"{word[-1]}</w>"]
    while len(parts) > 1:
        ranks = [merges.get(pair, len(merges)) for pair in pairwise(parts)]
        first = min(range(len(ranks)), key=ranks.__getitem__)
        merges.setdefault((parts[first], parts[first + 1]), len(merges))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]

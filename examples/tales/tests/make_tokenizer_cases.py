#!/usr/bin/env python3
"""Writes tokenizer_cases.json: what the `tokenizers` package makes of texts.

It is asked with the shipped tokenizer and with changed ones."""
import copy
import json
import pathlib
import tempfile

from tokenizers import Tokenizer, pre_tokenizers

HERE = pathlib.Path(__file__).resolve().parent
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def digits(individual):
    step = {"type": "Digits", "individual_digits": individual}
    return {"type": "Sequence", "pretokenizers": [step, BYTE_LEVEL]}


def added(number, content, normalized):
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": not normalized}


CHANGES = {
    "as shipped": {},
    "merges as strings": {"merges_as_strings": True},
    "a space before": {"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}},
    "no pattern": {"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}},
    "single digits": {"pre_tokenizer": digits(True), "merged": ["1", "2"]},
    "runs of digits": {"pre_tokenizer": digits(False), "merged": ["1", "2"]},
    "whole words first": {"ignore_merges": True},
    "added tokens": {"added_tokens": [added(1024, "<|end|>", False), added(1025, "<s>", True),
                                      added(1026, "<s>1", True), added(1027, "observ", True)]},
}
TEXTS = [
    "", " ", "  ", "\n", "The rays of light", " The rays  of\n\n light \n",
    "it's we'll I'M they've 'tis o''d 're've",
    "12 345 6,789.0 ab12cd", "a\r\n\r\nb\t\tc   d   ", "<|end|>observe <s>1 <s> <|end|>",
    "Ελληνικά γράμματα, déjà vu, Straße, Жизнь и судьба", "世界 한국어 かな עברית العربية हिन्दी",
    "x² ½ Ⅷ ٣ १२", "a\u00a0b\u2003c\u3000\u0085d\u200be",
    "e\u0301 \U0001f600\U0001f600 \U0001d400\U00010400 \U0003ffff",
    "=" * 300 + " " * 50 + "!?" * 20, "\u0000\u0001\u007f",
]


def encode(shipped, change):
    document = copy.deepcopy(shipped)
    if change.get("merges_as_strings"):
        document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    if "merged" in change:
        document["model"]["merges"].append(change["merged"])
        document["model"]["vocab"]["".join(change["merged"])] = len(document["model"]["vocab"])
    document["model"]["ignore_merges"] = change.get("ignore_merges", False)
    for field in ("pre_tokenizer", "added_tokens"):
        document[field] = change.get(field, document[field])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file)
        file.flush()
        tokenizer = Tokenizer.from_file(file.name)
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


if __name__ == "__main__":
    shipped = json.loads((HERE.parent / "base" / "tokenizer.json").read_text())
    cases = [{"name": name, "change": change, "ids": encode(shipped, change)}
             for name, change in CHANGES.items()]
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True).pre_tokenize_str
    # One character of a piece stands for one byte.
    pieces = [[len(piece) for piece, _ in split(text)] for text in TEXTS]
    lines = ["{", '"texts": ' + json.dumps(TEXTS) + ",", '"pieces": ' + json.dumps(pieces) + ",",
             '"cases": [', ",\n".join(map(json.dumps, cases)), "]}"]
    (HERE / "tokenizer_cases.json").write_text("\n".join(lines) + "\n", encoding="ascii")

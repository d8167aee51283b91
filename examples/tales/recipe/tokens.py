"""Trains the tokenizer: byte-level BPE with the GPT-2 split, 256 bytes and 768 merges, no special tokens."""
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 1024


def train_tokenizer(text, folder):
    """Writes tokenizer.json and tokenizer_config.json, both in ASCII, into `folder`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train([str(text)], trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise RuntimeError(f"{text} is too short for {VOCABULARY} tokens")
    folder.mkdir(parents=True, exist_ok=True)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    wrapped.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        escape_json(folder / name)


def escape_json(path):
    """Rewrites a JSON file with its characters beyond ASCII escaped: the same document for every reader."""
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="ascii", newline="\n")

"""Writes reference.json: what transformers and PEFT compute with the shipped files.

The base's bf16 weights are read as float32, adapters are float32, attention is transformers' "eager"
implementation. The same figures in float64 show how far rounding alone can move them."""
import contextlib
import json
import re
import zlib

import peft
import torch
import transformers
from transformers import AutoTokenizer, LlamaForCausalLM

from float64 import in_float64
from language import AUSTEN_WINDOWS, BATCH, WINDOW, encode, perplexity

ADAPTERS = ["lora", "adalora", "ia3"]
CONFIGURATIONS = ["base", *ADAPTERS, "disabled"]
PROMPT = "The rays of light"
CONTINUATION = 40
QUICK_WINDOWS = 8
SAMPLES = 16
NOTES = {
    "configurations":
        "base: without PEFT. disabled: the lora adapter loaded, then disabled; for each adapter it was "
        "verified that the logits of Opticks window 0 are then the base's, bit for bit.",
    "perplexity":
        "opticks: all whole windows of text/opticks.test.txt; austen: the first 256 of text/austen.test.txt; "
        "quick: the first 8 of each. Window i is a sequence of its own: it reads tokens "
        "[128 i, 128 i + 128) from position 0 and is scored on [128 i + 1, 128 i + 129). Losses are computed "
        "and summed in float64 from the logits.",
    "window":
        "The logits (128 x 1024) of Opticks window 0: their sum, the sum of their magnitudes (both taken in "
        "float64) and the single logits at the places in samples.",
    "continuation":
        "Greedy. smallest_lead is the smallest distance between the best and the second-best logit on the "
        "way: an implementation whose logits err by less than half of it finds the same ids.",
    "crc32":
        "Of the ids as little-endian int32.",
}


def load(folder, configuration):
    """The model of one configuration as float32, ready to run."""
    model = LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32,
                                             attn_implementation="eager")
    if configuration != "base":
        name = "lora" if configuration == "disabled" else configuration
        model = peft.PeftModel.from_pretrained(model, folder / "adapters" / name)
    return model.eval()


def adapter_state(model, configuration):
    return model.disable_adapter() if configuration == "disabled" else contextlib.nullcontext()


@torch.no_grad()
def window_logits(model, ids):
    return model(ids[None, :WINDOW]).logits[0]


def sample_places(ids):
    """Positions spread over window 0, each with the token that follows there."""
    positions = range(WINDOW // SAMPLES - 1, WINDOW, WINDOW // SAMPLES)
    return [{"position": position, "token": ids[position + 1].item()} for position in positions]


@torch.no_grad()
def continuation(model, prompt):
    """The ids that follow the prompt, and the smallest lead of a chosen token over the next best."""
    output = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=CONTINUATION, do_sample=False, return_dict_in_generate=True, output_logits=True)
    best = torch.cat(output.logits).topk(2).values
    return output.sequences[0, len(prompt):].tolist(), (best[:, 0] - best[:, 1]).min().item()


def measure(model, prompt, opticks, austen):
    logits = window_logits(model, opticks)
    samples = [logits[place["position"], place["token"]].item() for place in sample_places(opticks)]
    ids, smallest_lead = continuation(model, prompt)
    return {
        "perplexity": {"opticks": perplexity(model, opticks),
                       "austen": perplexity(model, austen, AUSTEN_WINDOWS)},
        "quick": {"opticks": perplexity(model, opticks, QUICK_WINDOWS),
                  "austen": perplexity(model, austen, QUICK_WINDOWS)},
        "window": {"sum": logits.double().sum().item(),
                   "sum_of_magnitudes": logits.double().abs().sum().item(), "logits": samples},
        "continuation": {"ids": ids, "smallest_lead": smallest_lead},
    }


def check_disabled(folder, opticks):
    expected = window_logits(load(folder, "base"), opticks)
    for name in ADAPTERS:
        model = load(folder, name)
        with model.disable_adapter():
            if not torch.equal(window_logits(model, opticks), expected):
                raise RuntimeError(f"{name}: disabled, the logits are not the base's")
        if torch.equal(window_logits(model, opticks), expected):
            raise RuntimeError(f"{name}: enabled, the adapter changes nothing")


def checksum(ids):
    return {"count": len(ids), "crc32": zlib.crc32(ids.numpy().astype("<i4").tobytes())}


def to_json(document):
    """Indented JSON with every list of plain values on one line."""
    text = json.dumps(document, indent=2)
    return re.sub(r"\[\s+([^][{}\"]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text) + "\n"


def write_reference(folder):
    """Writes reference.json into the folder that holds base/, text/ and adapters/."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    ids = {name: encode(tokenizer, folder / "text" / f"{name}.txt")
           for name in ("opticks.train", "opticks.test", "austen.test")}
    opticks, austen, prompt = ids["opticks.test"], ids["austen.test"], tokenizer(PROMPT)["input_ids"]
    check_disabled(folder, opticks)
    single, double = {}, {}
    for configuration in CONFIGURATIONS:
        model = load(folder, configuration)
        with adapter_state(model, configuration):
            single[configuration] = measure(model, prompt, opticks, austen)
            with in_float64(model):
                double[configuration] = measure(model, prompt, opticks, austen)
        print(configuration, single[configuration]["perplexity"], flush=True)
    document = {
        "versions": {library.__name__: library.__version__ for library in (torch, transformers, peft)},
        "notes": NOTES,
        "tokens": {name: checksum(values) for name, values in ids.items()},
        "prompt": {"text": PROMPT, "ids": prompt},
        "windows": {"length": WINDOW, "opticks": (len(opticks) - 1) // WINDOW, "austen": AUSTEN_WINDOWS,
                    "quick": QUICK_WINDOWS, "batch": BATCH},
        "samples": sample_places(opticks),
        "float32": single,
        "float64": double,
    }
    (folder / "reference.json").write_text(to_json(document), encoding="ascii", newline="\n")

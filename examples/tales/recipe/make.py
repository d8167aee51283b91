#!/usr/bin/env python3
"""Makes the embedded model `tales`: texts, tokenizer, base, adapters and their reference figures.

A stage whose outputs exist is skipped, and a base training that was stopped continues at its last
checkpoint. To make something again, delete it."""
import argparse
import functools
import json
import pathlib

import torch
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging

import adapters
import base
import reference
import texts
import tokens
from language import AUSTEN_WINDOWS, WINDOW, encode, perplexity

RECIPE = pathlib.Path(__file__).resolve().parent


class Tales:
    """The stages, each with the files it makes and the stages it needs."""

    def __init__(self, out, work, text_folder, packages):
        self.out, self.work, self.texts, self.packages = out, work, text_folder, packages
        self.base, self.shipped = out / "base", out / "text"
        self.figures = out / "recipe" / "figures.json"
        self.stages = {
            "novels": ([self.texts / "base.train.txt", self.texts / "persuasion.txt",
                        self.texts / "sawyer.test.txt"], [], self.make_novels),
            "opticks": ([self.shipped / "opticks.train.txt", self.shipped / "opticks.test.txt"], [],
                        self.make_opticks),
            "tokenizer": ([self.base / "tokenizer.json", self.base / "tokenizer_config.json"],
                          ["novels"], self.make_tokenizer),
            "excerpt": ([self.shipped / "austen.test.txt"], ["novels", "tokenizer"], self.make_excerpt),
            "base": ([self.base / "model.safetensors"], ["novels", "opticks", "tokenizer", "excerpt"],
                     self.make_base),
            **{name: ([out / "adapters" / name / "adapter_model.safetensors"],
                      ["base", "opticks", "excerpt"], functools.partial(self.make_adapter, name))
               for name in adapters.METHODS},
            "reference": ([out / "reference.json"], [*adapters.METHODS], self.make_reference),
        }

    def make(self, name):
        outputs, needs, run = self.stages[name]
        if all(path.exists() for path in outputs):
            return
        for need in needs:
            self.make(need)
        print(f"== {name}", flush=True)
        run()

    @functools.cached_property
    def tokenizer(self):
        return AutoTokenizer.from_pretrained(self.base)

    def ids(self, path):
        return encode(self.tokenizer, path)

    def record(self, name, figures):
        """Adds a stage's figures to figures.json."""
        recorded = json.loads(self.figures.read_text()) if self.figures.exists() else {}
        recorded[name] = figures
        print(json.dumps(figures), flush=True)
        self.figures.parent.mkdir(parents=True, exist_ok=True)
        self.figures.write_text(json.dumps(recorded, indent=2) + "\n")

    def held_out(self, model):
        return {"opticks": perplexity(model, self.ids(self.shipped / "opticks.test.txt")),
                "austen": perplexity(model, self.ids(self.shipped / "austen.test.txt"), AUSTEN_WINDOWS)}

    def make_novels(self):
        texts.write_novels(self.packages, self.texts)

    def make_opticks(self):
        texts.write_opticks(self.packages, self.shipped)

    def make_tokenizer(self):
        tokens.train_tokenizer(self.texts / "base.train.txt", self.base)

    def make_excerpt(self):
        texts.write_excerpt(self.tokenizer, self.texts / "persuasion.txt", self.shipped / "austen.test.txt",
                            AUSTEN_WINDOWS, WINDOW)

    def make_base(self):
        figures = base.train_base(self.ids(self.texts / "base.train.txt"), self.base, self.work)
        model = LlamaForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        figures["perplexity"] = self.held_out(model) | {
            "persuasion": perplexity(model, self.ids(self.texts / "persuasion.txt")),
            "sawyer": perplexity(model, self.ids(self.texts / "sawyer.test.txt"))}
        self.record("base", figures)

    def make_adapter(self, name):
        ids = self.ids(self.shipped / "opticks.train.txt")
        model, figures = adapters.train_adapter(name, self.base, ids, self.out / "adapters" / name, self.work)
        figures["perplexity"] = self.held_out(model)
        self.record(name, figures)

    def make_reference(self):
        reference.write_reference(self.out)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE",
                        help="novels, opticks, tokenizer, excerpt, base, lora, adalora, ia3 or reference "
                             "(default: all)")
    parser.add_argument("--out", type=pathlib.Path, default=RECIPE.parent,
                        help="folder that receives base/, text/, adapters/ and reference.json (default: ..)")
    parser.add_argument("--work", type=pathlib.Path, default=RECIPE / "work",
                        help="folder for checkpoints (default: work)")
    parser.add_argument("--texts", type=pathlib.Path,
                        help="folder for the texts that are not shipped (default: WORK/texts)")
    parser.add_argument("--packages", type=pathlib.Path, default=pathlib.Path("/"),
                        help="folder where the Debian packages are unpacked (default: /, installed)")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # so that sums have one order and two runs give the same bytes
    arguments.work.mkdir(parents=True, exist_ok=True)
    text_folder = arguments.texts or arguments.work / "texts"
    tales = Tales(arguments.out, arguments.work, text_folder, arguments.packages)
    # The novels are not shipped: they are only read when the tokenizer, the excerpt or the base is missing.
    for stage in arguments.stages or [name for name in tales.stages if name != "novels"]:
        if stage not in tales.stages:
            parser.error(f"there is no stage {stage}")
        tales.make(stage)


if __name__ == "__main__":
    main()

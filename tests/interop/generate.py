"""Writes the golden cases into a folder: python generate.py ../data/golden [name...]

With names, those cases alone; the others in the folder stay.

Every value comes from a fixed seed; the order in which PEFT writes its sets is fixed by the hash seed.
"""
import os
import shutil
import sys
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch

import golden_cases
import peft_side


def main():
    target = Path(sys.argv[1])
    torch.set_num_threads(1)
    names = sys.argv[2:]
    if not names:
        shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    for case in golden_cases.all_cases():
        if names and case["name"] not in names:
            continue
        shutil.rmtree(target / case["name"], ignore_errors=True)
        try:
            peft_side.prepare(case, target / case["name"])
        except Exception as error:
            raise SystemExit(f"{case['name']}: {type(error).__name__}: {error}")
    print(f"{len(list(target.iterdir()))} cases in {target}")


main()

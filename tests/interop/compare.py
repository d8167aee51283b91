"""Judges what graft made of a case: its outputs, trees, keys and files, which PEFT must read back."""
import json
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

import peft_side
from peft_side import distance

TOLERANCE = {"f32": 1e-5, "f64": 1e-12}
# A gradient sums over rows and positions what was rounded on the way forth and back.
GRADIENT_TOLERANCE = {"f32": 5e-5, "f64": 1e-11}
LARGEST = {"f32": 0.0, "f64": 0.0}  # deviation of an output within its tolerance, over all cases judged
LARGEST_GRADIENT = {"f32": 0.0, "f64": 0.0}
OWN_LAYERS = ("transposed", "user", "user_conv")  # their leaves print as the user's class, not as torch's
SETS = ("target_modules", "exclude_modules", "feedforward_modules")


def precisions(case):
    return ["f32"] if case["model"]["dtype"] in ("bf16", "f16") else ["f32", "f64"]


def with_sorted_sets(config):
    """The text of an adapter_config.json with the lists that are sets in Python sorted; nothing else changes."""

    def sort(match):
        return match[1] + ",\n".join(sorted(match[2].split(",\n"))) + match[3]

    for field in SETS:
        config = re.sub(rf'(  "{field}": \[\n)(.*?)(\n  \])', sort, config, flags=re.S)
    return config


def first_difference(mine, theirs):
    for a, b in zip(mine.splitlines(), theirs.splitlines()):
        if a != b:
            return f"'{a}' instead of '{b}'"
    return f"{len(mine.splitlines())} lines instead of {len(theirs.splitlines())}"


def stored_as(case, precision, file):
    """Whether graft keeps every tensor of a PEFT file in the dtype that it has there."""
    own = {"f32": "F32", "f64": "F64"}[precision]
    narrow = {"bf16": "BF16", "f16": "F16"}.get(case["model"]["dtype"], own)
    with safe_open(file, "pt") as tensors:
        for key in tensors.keys():
            adapter = any(part.startswith(("lora_", "ia3_")) for part in key.split("."))
            if tensors.get_slice(key).get_dtype() != (own if adapter else narrow):
                return False
    return True


def judge(case, directory):
    """The problems of a case, as texts; none if all is well."""
    problems = []
    for precision in precisions(case):
        reply = directory / f"reply-{precision}"
        if not (reply / "report.json").exists():
            problems.append(f"{precision}: no reply")
            continue
        report = json.loads((reply / "report.json").read_text())
        if report["error"]:
            problems.append(f"{precision}: {report['error']}")
            continue
        problems += [f"{precision}: {p}" for p in judge_reply(case, directory, precision, reply, report)]
    return problems


def judge_reply(case, directory, precision, reply, report):
    tolerance = TOLERANCE[precision]
    expected = load_file(directory / "tensors.safetensors")
    outputs = load_file(reply / "outputs.safetensors")
    for name in [k.removeprefix("expected.") for k in expected if k.startswith("expected.")]:
        mine, theirs = outputs[name], expected["expected." + name]
        if mine.shape != theirs.shape:
            yield f"output '{name}' has shape {list(mine.shape)} instead of {list(theirs.shape)}"
        elif not distance(mine, theirs) <= tolerance:
            yield f"output '{name}' is off by {distance(mine, theirs):.2e}"
        else:
            LARGEST[precision] = max(LARGEST[precision], distance(mine, theirs))
    if "disabled" in outputs and not torch.equal(outputs["disabled"], outputs["base"]):
        yield "disabling does not give the bits of the base"
    if "rescaled" in outputs and not torch.equal(outputs["rescaled"], outputs["together"]):
        yield "a scale of 1 does not restore the bits"
    for name, tree in case["trees"].items():
        tree = tree.replace("torch.DoubleTensor", "torch.FloatTensor") if precision == "f32" else tree
        if case["model"]["type"] not in OWN_LAYERS and report["trees"][name] != tree:
            yield f"tree '{name}': {first_difference(report['trees'][name], tree)}"
    for name, matched in case["matched"].items():
        if report["matched"][name] != matched:
            yield f"matched {report['matched'][name]} instead of {matched}"
    for name, keys in case["keys"].items():
        if set(report["keys"][name]) != set(keys):
            more, less = set(report["keys"][name]) - set(keys), set(keys) - set(report["keys"][name])
            yield f"state_dict has {sorted(more)} and lacks {sorted(less)}"
    gradients = {k[10:]: g for k, g in expected.items() if k.startswith("gradients.")}
    yield from judge_gradients(precision, reply, gradients, expected.get("rounding"))
    for step in case["steps"]:
        if step["do"] == "save":
            yield from judge_saved(case, directory, precision, reply / step["dir"], step, outputs)


def judge_gradients(precision, reply, expected, rounding):
    """Every parameter that has a gradient in PEFT has it in graft; what graft trains beside them has none."""
    if not expected:
        return
    mine = load_file(reply / "gradients.safetensors")
    tolerance = GRADIENT_TOLERANCE[precision]
    if precision == "f32":  # some models magnify rounding, in PEFT too
        tolerance = max(tolerance, 8 * float(rounding))
    for key, gradient in expected.items():
        if gradient.numel() == 0:  # all ranks are pruned
            continue
        if key not in mine:
            yield f"no gradient of '{key}', but of {sorted(mine)}"
            continue
        if mine[key].shape != gradient.shape and (key != "input" or mine[key].numel() != gradient.numel()):
            yield f"gradient of '{key}' has shape {list(mine[key].shape)} instead of {list(gradient.shape)}"
            continue
        off = distance(mine[key].flatten(), gradient.flatten())
        if not off <= tolerance:
            yield f"gradient of '{key}' is off by {off:.2e}"
        else:
            LARGEST_GRADIENT[precision] = max(LARGEST_GRADIENT[precision], off)
    for key in mine.keys() - expected.keys():
        if mine[key].any():
            yield f"gradient of '{key}', which PEFT does not train"


def judge_saved(case, directory, precision, saved, step, outputs):
    if step["identical_to"]:
        original = directory / step["identical_to"]
        mine, theirs = [with_sorted_sets((d / "adapter_config.json").read_text()) for d in (saved, original)]
        if mine != theirs:
            yield f"config of '{step['name']}': {first_difference(mine, theirs)}"
        mine, theirs = [d / "adapter_model.safetensors" for d in (saved, original)]
        if stored_as(case, precision, theirs) and mine.read_bytes() != theirs.read_bytes():
            yield f"weights of '{step['name']}' are not the bytes of PEFT's file"
    for read in [peft_side.read_back] + [peft_side.read_back_bare] * step.get("bare", False):
        yield from judge_read(case, directory, precision, saved, step, outputs, read)


def judge_read(case, directory, precision, saved, step, outputs, read):
    try:
        missing, unexpected, output, gradients, rounding = read(case, directory, saved, step["name"])
    except Exception as error:
        yield f"PEFT cannot {read.__name__} '{step['name']}': {type(error).__name__}: {str(error)[:300]}"
        return
    if missing or unexpected:
        yield f"PEFT misses {missing} and does not expect {unexpected} in '{step['name']}'"
    elif not distance(outputs[step["output"]], output) <= TOLERANCE[precision]:
        yield f"PEFT gives another output for saved '{step['name']}', off by {distance(outputs[step['output']], output):.2e}"
    else:
        yield from judge_gradients(precision, saved.parent.parent, gradients, rounding)

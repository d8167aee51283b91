"""Adapters that PEFT trains, ten steps of AdamW each, on a small decoder in f64: python runs.py

Writes into runs/ what all of them have, model.json and model.safetensors (base.*, ids, target), and for each the adapter
as it began, by save_pretrained, with trained.safetensors: the parameters behind the last step, and the loss of every step.
"""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from peft import get_peft_model
from safetensors.torch import save_file

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1] / "interop"))

import cases
import peft_side
import twins

SIZES = {"vocabulary": 13, "hidden": 7, "inner": 5, "wide": 11, "layers": 2, "bias": True}
SIZES |= {"padding_idx": None, "max_norm": None, "norm_type": 2.0}
MODEL = cases.model("decoder", SIZES, 3, "f64", rows=9)
STEPS, RATE = 10, 1e-2
LORA = {"r": 3, "lora_alpha": 5, "target_modules": ["embed_tokens", "q_proj", "o_proj", "up_proj"], "lora_dropout": 0.0}
RUNS = {
    "lora": ("LORA", LORA | {"modules_to_save": ["lm_head"], "bias": "lora_only", "use_rslora": True}),
    "dora": ("LORA", LORA | {"use_dora": True, "trainable_token_indices": None, "bias": "all"}),
    "ia3": ("IA3", {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "adalora": ("ADALORA", {"init_r": 4, "target_r": 2, "lora_alpha": 7, "lora_dropout": 0.0, "total_step": STEPS, "tinit": 1,
                            "tfinal": 2, "deltaT": 2, "orth_reg_weight": 0.3, "target_modules": ["q_proj", "v_proj", "down_proj"]}),
}


def trained(name, method, config, ids, target):
    model = get_peft_model(twins.build(MODEL), peft_side.config_of({"method": method, "config": config}))
    peft_side.randomise(model, 5)
    for key, parameter in model.named_parameters():
        if "ranknum" in key:  # PEFT trains it where the base is not f32
            parameter.requires_grad_(False)
    model.save_pretrained(here / "runs" / name)
    (here / "runs" / name / "README.md").unlink(missing_ok=True)
    inner = model.base_model.model
    infer = inner.forward
    inner.forward = lambda x: SimpleNamespace(loss=torch.nn.functional.mse_loss(infer(x), target))  # AdaLoRA adds to it
    own = {k.removeprefix("base_model.model."): p for k, p in model.named_parameters() if p.requires_grad}
    optimizer, losses = torch.optim.AdamW(own.values(), lr=RATE), []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model.base_model(ids).loss
        loss.backward()
        optimizer.step()
        if method == "ADALORA":
            model.base_model.update_and_allocate(step)
        losses.append(loss.item())
    tensors = {"trained." + k: p.detach().contiguous() for k, p in own.items()}
    save_file(tensors | {"losses": torch.tensor(losses, dtype=torch.float64)}, here / "runs" / name / "trained.safetensors")
    print(name, losses[0], losses[-1], len(own))


def main():
    torch.set_num_threads(1)
    (here / "runs").mkdir(exist_ok=True)
    base, ids = twins.build(MODEL), twins.draw_input(MODEL)
    target = torch.randn(len(ids), SIZES["vocabulary"], generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    tensors = {"base." + k: v.contiguous().clone() for k, v in base.state_dict().items()}
    save_file(tensors | {"ids": ids, "target": target}, here / "runs" / "model.safetensors")
    (here / "runs" / "model.json").write_text(json.dumps(SIZES) + "\n")
    for name, (method, config) in RUNS.items():
        trained(name, method, config, ids, target)


main()

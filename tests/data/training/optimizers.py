#!/usr/bin/env python3
"""Writes optimizers.safetensors: what torch's optimisers make of parameters, step by step.

Run with the Python of tools/interop (tests/interop/requirements.txt). The single-tensor form of each optimiser; "bias" has no
gradient in step 2. Keys: "<name>.<dtype>.<parameter>.<step>", step 0 before the first; gradients "gradient.<parameter>.<step>".
"lora.…" is a model of PEFT's, trained on one batch, with the gradients that it had before they were clipped to 0.3.
"""
import pathlib

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

STEPS = 6
out = {}


def put(key, value):
    out[key] = value.detach().clone().contiguous()


torch.manual_seed(7)
START = {"weight": torch.randn(3, 5, dtype=torch.float64), "bias": torch.randn(7, dtype=torch.float64)}
GRADIENTS = [{name: torch.randn_like(value) * 10.0 ** (step - 3) for name, value in START.items()} for step in range(STEPS)]
for step, gradients in enumerate(GRADIENTS):
    for name, gradient in gradients.items():
        put(f"gradient.{name}.{step}", gradient)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, foreach=False),
    "sgd_decay": lambda p: torch.optim.SGD(p, lr=0.03, weight_decay=0.1, foreach=False),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9, dampening=0.2, weight_decay=0.1, foreach=False),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.8, nesterov=True, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), weight_decay=0.1, foreach=False),
    "adam_small_beta": lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.3, 0.95), eps=1e-3, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, foreach=False),
    "adamw_amsgrad": lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.7), weight_decay=0.3, amsgrad=True, foreach=False),
}
for name, make in OPTIMIZERS.items():
    for tag, dtype in (("f64", torch.float64), ("f32", torch.float32)):
        parameters = {key: nn.Parameter(value.to(dtype, copy=True)) for key, value in START.items()}
        optimizer = make(list(parameters.values()))
        for step in range(STEPS + 1):
            for key, parameter in parameters.items():
                put(f"{name}.{tag}.{key}.{step}", parameter)
            if step == STEPS:
                break
            for key, parameter in parameters.items():
                parameter.grad = None if key == "bias" and step == 2 else GRADIENTS[step][key].to(dtype, copy=True)
            if step == 4:  # as a schedule does
                for group in optimizer.param_groups:
                    group["lr"] *= 0.5
            optimizer.step()

parameters = {key: nn.Parameter(value.clone()) for key, value in START.items()}
for max_norm in (0.5, 100.0):
    for key, parameter in parameters.items():
        parameter.grad = GRADIENTS[3][key].clone()
    put(f"clip.{max_norm:g}.norm", torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm))
    for key, parameter in parameters.items():
        put(f"clip.{max_norm:g}.{key}", parameter.grad)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(5, 7)
        self.down = nn.Linear(7, 3)

    def forward(self, x):
        return self.down(torch.tanh(self.up(x)))


torch.manual_seed(8)
net = get_peft_model(Net().double(), LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["up", "down"]))
x, y = torch.randn(11, 5, dtype=torch.float64), torch.randn(11, 3, dtype=torch.float64)
trained = {name.removeprefix("base_model.model."): p for name, p in net.named_parameters() if p.requires_grad}
for key, value in net.get_base_model().state_dict().items():
    if ".lora_" not in key:
        put(f"lora.base.{key.replace('.base_layer', '')}", value)
optimizer = torch.optim.AdamW(trained.values(), lr=0.01, weight_decay=0.05, foreach=False)
for step in range(STEPS + 1):
    for key, parameter in trained.items():
        put(f"lora.{step}.{key}", parameter)
    if step == STEPS:
        break
    optimizer.zero_grad()
    (net(x) - y).square().mean().backward()
    for key, parameter in trained.items():
        put(f"lora.gradient.{step}.{key}", parameter.grad)
    put(f"lora.norm.{step}", torch.nn.utils.clip_grad_norm_(trained.values(), 0.3, foreach=False))
    optimizer.step()
for key, value in get_peft_model_state_dict(net).items():
    put(f"lora.file.{key.removeprefix('base_model.model.')}", value)

save_file(out, pathlib.Path(__file__).with_name("optimizers.safetensors"))

#!/usr/bin/env python3
"""Writes adalora.safetensors: thirteen steps of an AdaLoRA model of PEFT's, with its own rank allocator.

Run with the Python of tools/interop (tests/interop/requirements.txt). Keys: "<step>.<parameter>" behind update_and_allocate of
that step, "start.<parameter>" before all; "<step>.gradient.<parameter>" what the optimiser saw, the penalty's part included;
"<step>.budget"; "<step>.pattern.<layer>" once there is one; "<step>.penalty" and, of the first step, "penalty.<parameter>",
the gradient of the penalty alone; "file.<key>" what PEFT saves.
"""
import pathlib

import torch
from peft import AdaLoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

TOTAL = 13
out = {}


def put(key, value):
    out[key] = torch.as_tensor(value).detach().clone().contiguous()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(5, 7)
        self.down = nn.Linear(7, 3)

    def forward(self, x):
        return self.down(torch.tanh(self.up(x)))


torch.manual_seed(2)
config = AdaLoraConfig(init_r=4, target_r=2, tinit=2, tfinal=3, total_step=TOTAL, deltaT=2, beta1=0.8, beta2=0.9,
                       orth_reg_weight=0.3, lora_alpha=3, target_modules=["up", "down"])
net = get_peft_model(Net().double(), config).double()
trained = {name.removeprefix("base_model.model."): p for name, p in net.named_parameters() if p.requires_grad and "ranknum" not in name}
for parameter in trained.values():
    parameter.data = torch.randn_like(parameter) * 0.5
for key, parameter in trained.items():
    put(f"start.{key}", parameter)
x, y = torch.randn(11, 5, dtype=torch.float64), torch.randn(11, 3, dtype=torch.float64)
optimizer = torch.optim.AdamW(trained.values(), lr=0.1, foreach=False)
config = net.peft_config["default"]


def penalty():
    norms = []
    for key, p in trained.items():
        if "lora_A" in key or "lora_B" in key:
            square = p @ p.T if "lora_A" in key else p.T @ p
            norms.append(torch.norm(square - torch.eye(len(square), dtype=p.dtype), p="fro"))
    return config.orth_reg_weight * sum(norms) / len(norms)


for key, gradient in zip(trained, torch.autograd.grad(penalty(), trained.values(), allow_unused=True)):
    if gradient is not None:
        put(f"penalty.{key}", gradient)
for step in range(TOTAL):
    optimizer.zero_grad()
    added = penalty()
    put(f"{step}.penalty", added)
    ((net(x) - y).square().mean() + added).backward()
    for key, parameter in trained.items():
        put(f"{step}.gradient.{key}", parameter.grad)
    optimizer.step()
    net.base_model.update_and_allocate(step)
    put(f"{step}.budget", float(net.base_model.rankallocator.budget_schedule(step)[0]))
    for key, parameter in trained.items():
        put(f"{step}.{key}", parameter)
    for key, kept in (config.rank_pattern or {}).items():
        layer = key.removeprefix("base_model.model.").removeprefix("model.").removesuffix(".lora_E.default")
        put(f"{step}.pattern.{layer}", torch.tensor(kept))
for key, value in get_peft_model_state_dict(net).items():
    put(f"file.{key.removeprefix('base_model.model.')}", value)
save_file(out, pathlib.Path(__file__).with_name("adalora.safetensors"))
for step in range(TOTAL):
    print(step, int(out[f"{step}.budget"]), {k.split(".")[-1]: v.int().tolist() for k, v in out.items() if k.startswith(f"{step}.pattern.")})
print({k: tuple(v.shape) for k, v in out.items() if k.startswith("file.")})

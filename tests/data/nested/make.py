"""Adapters that PEFT wrote from nested methods, with what it computes: python make.py (into this folder)."""
import os
import shutil
import sys
import warnings
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 7)
        self.b = nn.Linear(7, 3)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


def draw(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        offset = 1.0 if "ia3_l" in name or "magnitude" in name else 0.0
        parameter.data = (torch.rand(parameter.shape, generator=generator) - 0.5) * 0.9 + offset


def write(name, inner, outer, seed):
    base = Net()
    draw(base, seed)
    base.b.weight.data, base.b.bias.data = base.b.weight.data + 0.3, base.b.bias.data - 0.2
    tensors = {"base." + k: v.clone() for k, v in base.state_dict().items()}
    x = torch.rand(4, 5, generator=torch.Generator().manual_seed(seed + 1)) - 0.5
    tensors["input"] = x
    one = get_peft_model(base, inner, adapter_name="inner")
    two = get_peft_model(base, outer, adapter_name="outer")
    before = {k: v.clone() for k, v in base.state_dict().items()}
    draw(base, seed + 2)
    for key, value in base.state_dict().items():
        if "lora_" not in key and "ia3_" not in key:
            value.copy_(before[key])
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    one.save_pretrained(folder / "tmp")
    for adapter in ("inner", "outer"):
        shutil.move(folder / "tmp" / adapter, folder / adapter)
        (folder / adapter / "README.md").unlink(missing_ok=True)
    shutil.rmtree(folder / "tmp")
    (folder / "tree.txt").write_text(str(base) + "\n")
    (folder / "keys.txt").write_text("\n".join(base.state_dict()) + "\n")
    base.double().eval()
    with torch.no_grad():
        tensors["expected.both"] = base(x.double())
        layer = base.a
        layer.set_adapter([])
        tensors["expected.inner"] = base(x.double())
        layer.set_adapter(["outer"])
        layer.base_layer.set_adapter([])
        tensors["expected.outer"] = base(x.double())
    save_file(tensors, folder / "tensors.safetensors")


warnings.simplefilter("ignore")
lora = dict(r=3, lora_alpha=4, target_modules=["a"])
write("lora_around_ia3", IA3Config(target_modules=["a"], feedforward_modules=[]), LoraConfig(**lora), 10)
write("lora_around_feedforward", IA3Config(target_modules=["a"], feedforward_modules=["a"]), LoraConfig(**lora), 20)
write("dora_around_ia3", IA3Config(target_modules=["a"], feedforward_modules=[]), LoraConfig(**lora, use_dora=True), 30)
write("feedforward_around_lora", LoraConfig(**lora), IA3Config(target_modules=["a"], feedforward_modules=["a"]), 40)

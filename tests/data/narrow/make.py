"""Adapters of bf16 and f16 as PEFT writes them, with what it computes in double: python make.py (into this folder)."""
import os
import shutil
import sys
import warnings
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.lin = nn.Linear(8, 7)
        self.conv = nn.Conv2d(2, 3, (3, 2), padding=(1, 0))

    def forward(self, ids):
        return self.lin(self.emb(ids))


def draw(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if "ranknum" in name:
            continue
        offset = 1.0 if "ia3_l" in name or "magnitude" in name else 0.0
        parameter.data = (torch.rand(parameter.shape, generator=generator) - 0.5) * 0.9 + offset


def write(name, config, dtype, seed):
    base = Net()
    draw(base, 1)
    tensors = {"base." + k: v.clone() for k, v in base.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    inputs = {"lin": torch.rand(5, 8, generator=generator) - 0.5, "conv": torch.rand(2, 2, 4, 5, generator=generator) - 0.5,
              "emb": torch.tensor([3, 0, 10, 3, 7])}
    tensors |= {"input." + k: v for k, v in inputs.items()}
    before = {k: v.clone() for k, v in base.state_dict().items()}
    model = get_peft_model(base, config)
    draw(base, seed)
    for key, value in base.state_dict().items():
        bare = key.replace(".base_layer", "")
        if bare in before:
            value.copy_(before[bare])
    for key, parameter in base.named_parameters():
        if "lora_" in key or "ia3_" in key:
            parameter.data = parameter.data.to(dtype)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    base.double().eval()
    with torch.no_grad():
        for key, value in inputs.items():
            tensors["output." + key] = getattr(base, key)(value if key == "emb" else value.double())
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    everywhere = {"target_modules": ["emb", "lin", "conv"], "r": 3, "lora_alpha": 7}
    write("lora_bf16", LoraConfig(**everywhere), torch.bfloat16, 11)
    write("dora_f16", LoraConfig(use_dora=True, **everywhere), torch.float16, 12)
    write("adalora_bf16", AdaLoraConfig(init_r=3, target_r=2, lora_alpha=7, total_step=100, target_modules=["lin", "conv"]),
          torch.bfloat16, 13)
    write("ia3_f16", IA3Config(target_modules=["lin", "conv"], feedforward_modules=["lin"]), torch.float16, 14)

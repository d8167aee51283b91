"""Writes the fixtures beside it with PEFT 0.21.2, torch 2.13 and safetensors 0.8: python make.py"""

import pathlib

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

here = pathlib.Path(__file__).parent


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin0 = nn.Linear(4, 6)
        self.lin1 = nn.Linear(6, 3)


def count(model):
    """Gives the parameters the values 0, 1, 2, …, in the order of their names."""
    start = 0
    for _, parameter in sorted(model.named_parameters()):
        size = parameter.numel()
        parameter.data = torch.arange(start, start + size, dtype=torch.float32).reshape(parameter.shape)
        start += size


def write(name, config):
    model = get_peft_model(MLP(), config)
    count(model)
    model.save_pretrained(here / name)
    (here / name / "README.md").unlink()


write("lora", LoraConfig(r=2, target_modules=["lin0"], bias="lora_only", modules_to_save=["lin1"]))
write("adalora", AdaLoraConfig(target_modules=["lin0", "lin1"], init_r=2, target_r=1, total_step=9,
                               rank_pattern={"lin0.lora_E": [True, False], "lin1.lora_E": [False, False]}))
write("ia3", IA3Config(target_modules=["lin0"], feedforward_modules=[]))

values = here / "values"
LoraConfig(target_modules=["é"], rank_pattern={"q": 1, "a.b": 2}, alpha_pattern={"q": 0.5}, lora_alpha=16.0,
           lora_dropout=1e-5, layers_to_transform=[1, 0], modules_to_save=[], layers_pattern="h",
           trainable_token_indices={"emb": [3, 1], "😀": []}).save_pretrained(values)

save_file({
    "b": torch.tensor([1.0, -2.0]),
    "a": torch.tensor([0.5], dtype=torch.float16),
    "é": torch.tensor(3.0),
    'quote " \\ \n \x01 \x7f': torch.zeros(0, 3, dtype=torch.bfloat16),
    "long": torch.tensor([[-1], [2]], dtype=torch.int64),
    "double": torch.tensor([[0.1]], dtype=torch.float64),
    "bool": torch.tensor([True, False, True]),
    "int": torch.tensor([7], dtype=torch.int32),
    "short": torch.tensor([-7], dtype=torch.int16),
    "char": torch.tensor([-3], dtype=torch.int8),
    "byte": torch.tensor([250], dtype=torch.uint8),
}, here / "every_dtype.safetensors", metadata={"form\tat": "p\u2028t"})

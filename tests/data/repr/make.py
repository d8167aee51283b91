"""Writes trees.txt, what torch and PEFT print: python3 make.py > trees.txt

Made with torch 2.13, peft 0.21.2, transformers 5.23. A line "@ name" stands before each tree.
"""
import warnings

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

warnings.simplefilter("ignore")


class One(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin0 = nn.Linear(4, 6)
        self.lin1 = nn.Linear(6, 3)


class MLPWithAttention(MLP):
    def __init__(self):
        super().__init__()
        self.m = nn.MultiheadAttention(6, 2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q = nn.Linear(4, 4)
        self.act = nn.ReLU()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(4, 3)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.second = self.first
        self.list = nn.ModuleList([self.first, self.first])
        self.p = nn.Linear(4, 3)
        self.p_again = self.p


def inject(model, *targets, cls=LoraConfig, name="default", meta=False, **fields):
    if cls is LoraConfig:
        fields = dict(r=2) | fields
    config = cls(target_modules=list(targets), **fields)
    return inject_adapter_in_model(config, model, name, low_cpu_mem_usage=meta)


def show(name, tree):
    print("@", name)
    print(tree)


adalora = dict(cls=AdaLoraConfig, init_r=3, target_r=1, total_step=9)
ia3 = dict(cls=IA3Config, feedforward_modules=[])
feedforward = dict(cls=IA3Config, feedforward_modules=["m"])

# LoRA
show("linear", inject(MLP(), "lin0"))
show("dropout and lora_bias", inject(One(nn.Linear(5, 7, bias=False)), "m", lora_dropout=0.1, lora_bias=True).m)
model = inject(One(nn.Embedding(11, 3, padding_idx=0)), "m")
show("embedding", model.m)
show("embedding with two", inject(model, "m", name="other", r=4).m)
show("embedding of doubles", inject(One(nn.Embedding(11, 3).double()), "m").m)
show("embedding on meta", inject(One(nn.Embedding(11, 3)), "m", meta=True).m)
show("conv1d", inject(One(nn.Conv1d(5, 7, 3)), "m").m)
show("conv2d with groups", inject(One(nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2)), "m").m)
show("conv2d with same", inject(One(nn.Conv2d(4, 6, 3, padding="same", dilation=2, padding_mode="reflect", bias=False)), "m").m)
show("conv2d with lora_bias", inject(One(nn.Conv2d(4, 6, 3)), "m", lora_bias=True).m)
show("conv3d", inject(One(nn.Conv3d(5, 7, (3, 1, 2), dilation=(1, 2, 1))), "m").m)
show("transposed", inject(One(Conv1D(7, 5)), "m").m)
attention = lambda: One(nn.MultiheadAttention(6, 2, bias=False))
show("attention", inject(attention(), "m", lora_dropout=0.1))
show("attention of two", inject(inject(attention(), "m"), "m", name="b", r=4).m)
show("attention whose output projection is a target", inject(attention(), "out_proj").m)
show("attention that is saved whole", inject(MLPWithAttention(), "lin0", modules_to_save=["m"]).m)
show("two adapters", inject(inject(MLP(), "lin0"), "lin0", "lin1", name="other", r=3, lora_dropout=0.5))

# AdaLoRA and IA3
show("adalora", inject(One(nn.Linear(5, 7)), "m", **adalora))
show("adalora on meta", inject(One(nn.Linear(5, 7)), "m", meta=True, **adalora).m)
show("adalora of conv2d", inject(One(nn.Conv2d(5, 7, (3, 2))), "m", **adalora).m)
show("ia3", inject(One(nn.Linear(5, 7)), "m", **ia3).m)
show("ia3 feedforward", inject(One(nn.Linear(5, 7)), "m", **feedforward).m)
show("ia3 feedforward conv2d", inject(One(nn.Conv2d(5, 7, 3)), "m", **feedforward).m)
show("ia3 conv3d", inject(One(nn.Conv3d(5, 7, 3)), "m", **ia3).m)
show("ia3 transposed", inject(One(Conv1D(7, 5)), "m", **feedforward).m)
show("ia3 with two", inject(inject(One(nn.Linear(5, 7)), "m", **ia3), "m", name="b", **ia3).m)

# several at one layer, and none again
model = inject(MLP(), "lin0", modules_to_save=["lin1"])
show("saved module", model.lin1)
show("saved module of two", inject(model, "lin0", name="b", modules_to_save=["lin1"]).lin1)
model = inject(inject(One(nn.Linear(5, 7)), "m"), "m", name="b", **ia3)
show("lora in ia3 in lora", inject(model, "m", name="c", r=4).m)
show("adalora in lora", inject(inject(One(nn.Linear(5, 7)), "m", **adalora), "m", name="b").m)
model = get_peft_model(MLP(), LoraConfig(r=2, target_modules=["lin0"], modules_to_save=["lin1"]))
model.add_adapter("x", LoraConfig(r=3, target_modules=["lin0"]))
model.delete_adapter("default")
show("one deleted", model.base_model.model)
model.delete_adapter("x")
show("all deleted", model.base_model.model)

# containers
show("blocks", Net())
show("blocks adapted alike", inject(Net(), "q"))
show("a block with another rank", inject(Net(), "q", rank_pattern={"layers.2.q": 4}))
show("modules under several names", Shared())
show("modules under several names adapted", inject(Shared(), "q", "p"))
show("sequential", nn.Sequential(nn.ReLU(), nn.ReLU()))
show("list", nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh(), nn.ReLU()]))
show("list of lists", nn.ModuleList([nn.ModuleList([nn.ReLU(), nn.ReLU()]), nn.ModuleList([nn.ReLU(), nn.ReLU()])]))
show("map", nn.ModuleDict({"a": nn.ReLU(), "b": nn.ReLU()}))
show("parameter list", nn.ParameterList([torch.zeros(2, 3), torch.zeros(2, 3)]))
show("parameter list of one", nn.ParameterList([torch.zeros(2, 3, dtype=torch.bfloat16)]))
show("parameter map", nn.ParameterDict({"a": torch.zeros(4, dtype=torch.float64)}))

# layers
LAYERS = (
    nn.Linear(5, 7), nn.Linear(5, 7, bias=False), Conv1D(7, 5),
    nn.Embedding(11, 3), nn.Embedding(11, 3, padding_idx=-1),
    nn.Embedding(11, 3, max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True, sparse=True),
    nn.Conv1d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, dilation=(2, 1), bias=False, padding_mode="circular"),
    nn.Conv3d(4, 6, (1, 2, 3), stride=(3, 2, 1), groups=2, padding_mode="replicate"),
    nn.LayerNorm(4), nn.LayerNorm(4, eps=1e-6, bias=False), nn.RMSNorm(4, eps=1e-6),
    nn.ReLU(), nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.Tanh(), nn.Sigmoid(), nn.Identity(),
    nn.Dropout(), nn.Dropout(0.0001), nn.Dropout(0.1), nn.Dropout(1e-5),
)
show("layers", "\n".join(map(str, LAYERS)))

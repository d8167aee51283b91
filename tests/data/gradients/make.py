"""Gradients that torch's autograd finds of what PEFT computes: python make.py (writes values.safetensors here).

All numbers that go in are ramps, which tests/support/peft_gradients.hpp makes alike: of the layer's weight and bias with salt
1 and 2, of the adapter's tensors, by ascending names, with salts from 3 on, of the input 0, of the gradient by the result 13.
"""
import math
import warnings
from pathlib import Path

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

warnings.simplefilter("ignore")
out = {}


def ramp(*shape, salt=0):
    i = torch.arange(math.prod(shape))
    return (((i * 37 + salt * 11) % 23 - 11) / 8).double().reshape(shape)


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.site = nn.Parameter(torch.zeros(3, 7, 13))
        self.experts = torch.tensor([2, 0, 2, 1, 2])

    def forward(self, x):
        return torch.einsum("ni,noi->no", x, self.site[self.experts])


class Net(nn.Module):
    def __init__(self, site):
        super().__init__()
        self.site = site
        self.other = nn.Linear(2, 2)

    def forward(self, x):
        return self.site(x)


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Stack()
        self.other = nn.Linear(2, 2)

    def forward(self, x):
        return self.inner(x)


def key_of(name):
    key = name.replace(".default", "").replace("modules_to_save.", "")
    key = key.removesuffix(".weight") if "magnitude" in key else key
    return key.split("site.")[-1] if "site." in key else key.removeprefix("inner.")


def record(case, net, config, x):
    net = net.double()
    base = net.inner if isinstance(net, Around) else net.site
    if isinstance(net, Around):
        base.site.data = ramp(*base.site.shape, salt=1)
    else:
        base.weight.data = ramp(*base.weight.shape, salt=1)
        if getattr(base, "bias", None) is not None:
            base.bias.data = ramp(*base.bias.shape, salt=2) * (not isinstance(base, Conv1D))
    net.requires_grad_(False)
    if getattr(config, "init_lora_weights", True) == "olora":
        net.float()  # PEFT does not start from a double weight: these values are good to some 1e-6
    inject_adapter_in_model(config, net)
    net.double().train()
    trained = {key_of(name): p for name, p in net.named_parameters() if p.requires_grad and "ranknum" not in name and not name.startswith("other")}
    for i, key in enumerate(sorted(trained)):
        values = ramp(*trained[key].shape, salt=3 + i)
        trained[key].data = values + 1 if "ia3_l" in key else values.abs() + 0.5 if "magnitude" in key else values
    x = x.clone().requires_grad_(x.is_floating_point())
    y = net(x)
    y.backward(ramp(*y.shape, salt=13))
    out[f"{case}/y"] = y
    if x.grad is not None:
        out[f"{case}/dx"] = x.grad
    for key, parameter in trained.items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0.1, (case, key)
        out[f"{case}/{key}"] = parameter.grad
    print(case, sorted(trained))


def lora(**more):
    return LoraConfig(**({"r": 3, "lora_alpha": 7, "target_modules": ["site"]} | more))


def adalora():
    return AdaLoraConfig(init_r=3, target_r=1, lora_alpha=7, target_modules=["site"], total_step=10)


def ia3(feedforward=()):
    return IA3Config(target_modules=["site"], feedforward_modules=list(feedforward))


rows, ids = ramp(5, 13), torch.tensor([3, 8, 0, 8, 12])
image = ramp(5, 4, 5, 7)
beside = {"target_modules": ["other"]}


def table(**more):
    return Net(nn.Embedding(13, 7, **more))


looked_up = {"padding_idx": 3, "max_norm": 1.5, "scale_grad_by_freq": True}
record("linear_lora", Net(nn.Linear(13, 7)), lora(bias="lora_only", lora_bias=True), rows)
record("linear_rslora", Net(nn.Linear(13, 7)), lora(use_rslora=True), rows)
record("linear_dora", Net(nn.Linear(13, 7)), lora(bias="lora_only", use_dora=True), rows)
record("linear_olora", Net(nn.Linear(13, 7)), lora(init_lora_weights="olora"), rows)
record("linear_olora_dora", Net(nn.Linear(13, 7)), lora(init_lora_weights="olora", use_dora=True), rows)
record("transposed_lora", Net(Conv1D(7, 13)), lora(fan_in_fan_out=True), rows)
record("embedding_lora", table(), lora(), ids)
record("embedding_lora_options", table(**looked_up), lora(), ids)
record("embedding_dora", table(), lora(use_dora=True), ids)
record("conv1d_lora", Net(nn.Conv1d(3, 7, 3, stride=2, padding=1)), lora(lora_bias=True), ramp(5, 3, 13))
record("conv2d_lora", Net(nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2)), lora(r=4), image)
record("conv2d_dora", Net(nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0))), lora(bias="lora_only", use_dora=True), image)
record("linear_adalora", Net(nn.Linear(13, 7)), adalora(), rows)
record("conv2d_adalora", Net(nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0))), adalora(), image)
record("linear_ia3", Net(nn.Linear(13, 7)), ia3(), rows)
record("linear_ia3_feedforward", Net(nn.Linear(13, 7)), ia3(["site"]), rows)
record("conv2d_ia3", Net(nn.Conv2d(4, 6, (3, 2), groups=2)), ia3(), image)
record("conv2d_ia3_feedforward", Net(nn.Conv2d(4, 6, (3, 2), groups=2)), ia3(["site"]), image)
record("embedding_tokens", table(**looked_up), lora(**beside, trainable_token_indices={"site": [8, 3, 0]}), ids)
record("head_tokens", Net(nn.Linear(13, 7, bias=False)), lora(**beside, trainable_token_indices={"site": [5, 0, 3]}), rows)
record("linear_copy", Net(nn.Linear(13, 7)), lora(**beside, modules_to_save=["site"]), rows)
record("embedding_copy", table(**looked_up), lora(**beside, modules_to_save=["site"]), ids)
record("stack_lora", Around(), lora(r=2, target_modules=["other"], target_parameters=["inner.site"]), rows)

folder = Path(__file__).parent
save_file({key: value.detach().clone().contiguous() for key, value in out.items()}, folder / "values.safetensors")
print(len(out), "tensors", (folder / "values.safetensors").stat().st_size, "bytes")

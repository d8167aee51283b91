#!/usr/bin/env python3
"""Writes values.safetensors: what PEFT makes of adapters that are initialised from weights, combined and converted.

Run with the Python of tools/interop (tests/interop/requirements.txt). Where PEFT fails (SVD of 1-d and 3-d convolutions,
conversion of AdaLoRA and (IA)3) the expected values are NumPy's, from the formulas.
"""
import math
import pathlib
import tempfile

import numpy as np
import torch
from peft import EvaConfig, LoraConfig, convert_to_lora, get_peft_model, initialize_lora_eva_weights
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

torch.manual_seed(0)
out = {}


def put(key, value):
    out[key] = torch.as_tensor(value).detach().clone().contiguous()


class One(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.lin = layer

    def forward(self, x):
        return self.lin(x)


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.rand(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype) * 2 - 1
    return model


def matrices(layer, name):
    if name in layer.lora_embedding_A:
        return layer.lora_embedding_A[name], layer.lora_embedding_B[name]
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def product(layer, name):
    a, b = matrices(layer, name)
    return layer.scaling[name] * b.detach().flatten(1) @ a.detach().flatten(1)


# ---- combination: three adapters of rank 3 ----------------------------------------------------------------------
NAMES, WEIGHTS, ALPHAS, DENSITY, RANK = ["a", "b", "c"], [0.7, -1.3, 0.4], [5, 2, 4], 0.55, 6
LAYERS = {
    "linear": lambda: nn.Linear(13, 7),
    "transposed": lambda: Conv1D(7, 13),
    "embedding": lambda: nn.Embedding(19, 11),
    "conv1d": lambda: nn.Conv1d(5, 7, 3),
    "conv2d": lambda: nn.Conv2d(5, 7, (3, 2)),
    "conv3d": lambda: nn.Conv3d(3, 7, 2),
}


def truncated(matrix, rank):
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def pruned(matrix, density):
    flat, kept = matrix.flatten(), np.zeros(matrix.size)
    largest = np.argsort(-np.abs(flat), kind="stable")[: int(density * flat.size)]
    kept[largest] = flat[largest]
    return kept.reshape(matrix.shape)


def by_sign(tensors, weights, how):
    stacked = np.stack(tensors)
    votes = stacked.sum(0) if how == "total" else np.sign(stacked).sum(0)
    agrees = np.sign(stacked) == np.where(votes >= 0, 1, -1)
    return (stacked * np.array(weights)[:, None, None] * agrees).sum(0) / np.maximum(agrees.sum(0), 1)


for kind, make in LAYERS.items():
    model = get_peft_model(One(make()).double(), LoraConfig(target_modules=["lin"], r=3, lora_alpha=ALPHAS[0]), adapter_name="a")
    for name, alpha in zip(NAMES[1:], ALPHAS[1:]):
        model.add_adapter(name, LoraConfig(target_modules=["lin"], r=3, lora_alpha=alpha))
    randomise(model, 5)
    layer = model.base_model.model.lin
    for name in NAMES:
        for letter, matrix in zip("AB", matrices(layer, name)):
            put(f"{kind}.{name}.{letter}", matrix)
    for combination in ("cat", "linear", "magnitude_prune", "ties", "ties_frequency"):
        how = "frequency" if combination.endswith("frequency") else "total"
        model.add_weighted_adapter(NAMES, WEIGHTS, combination, combination_type=combination.removesuffix("_frequency"), density=DENSITY, majority_sign_method=how)
        for letter, matrix in zip("AB", matrices(layer, combination)):
            put(f"{kind}.{combination}.{letter}", matrix)
    for combination in ("svd", "magnitude_prune_svd", "ties_svd"):
        if kind in ("conv1d", "conv3d"):  # PEFT fails
            deltas = [product(layer, name).numpy() for name in NAMES]
            summed = lambda tensors: sum(w * t for w, t in zip(WEIGHTS, tensors))  # noqa: E731
            combined = {
                "svd": lambda: summed(deltas),
                "magnitude_prune_svd": lambda: summed([pruned(d, DENSITY) for d in deltas]),
                "ties_svd": lambda: by_sign([pruned(d, DENSITY) for d in deltas], WEIGHTS, "total"),
            }[combination]()
            put(f"{kind}.{combination}.delta", truncated(combined, RANK))
            continue
        model.add_weighted_adapter(NAMES, WEIGHTS, combination, combination_type=combination, density=DENSITY, svd_rank=RANK)
        put(f"{kind}.{combination}.delta", product(layer, combination))

# ---- initialisation from the base weight, then other values as if trained -----------------------------------------
for kind, make in (("linear", lambda: nn.Linear(13, 7)), ("tall", lambda: nn.Linear(7, 13)), ("transposed", lambda: Conv1D(7, 13))):
    for scheme in ("pissa", "olora"):
        if scheme == "olora" and kind == "transposed":  # PEFT ignores the layout and fails
            continue
        for rslora in (False, True):
            tag = f"{kind}.{scheme}{'.rslora' if rslora else ''}"
            base = One(make())
            nn.init.normal_(base.lin.weight)
            nn.init.normal_(base.lin.bias)
            x = torch.randn(4, base.lin.weight.shape[0 if kind == "transposed" else 1])
            put(f"{tag}.weight", base.lin.weight)
            put(f"{tag}.bias", base.lin.bias)
            put(f"{tag}.x", x)
            config = LoraConfig(target_modules=["lin"], r=3, lora_alpha=5, init_lora_weights=scheme, use_rslora=rslora, fan_in_fan_out=kind == "transposed")
            model = get_peft_model(base, config)
            layer = model.base_model.model.lin
            put(f"{tag}.start", product(layer, "default"))
            with tempfile.TemporaryDirectory() as folder:
                model.peft_config["default"].init_lora_weights = True
                model.save_pretrained(f"{folder}/start")
                model.peft_config["default"].init_lora_weights = scheme
                randomise(model, 7)
                for letter, matrix in zip("AB", matrices(layer, "default")):
                    put(f"{tag}.{letter}", matrix)
                put(f"{tag}.y", model(x))
                model.save_pretrained(f"{folder}/plain", path_initial_model_for_weight_conversion=f"{folder}/start")
                tensors = load_file(f"{folder}/plain/adapter_model.safetensors")
                saved = LoraConfig.from_pretrained(f"{folder}/plain")
                assert saved.r == 6 and saved.init_lora_weights is True
                assert saved.lora_alpha == (5 * math.sqrt(2) if rslora else 10), saved.lora_alpha
                a, b = (tensors[f"base_model.model.lin.lora_{letter}.weight"] for letter in "AB")
                put(f"{tag}.plain", b @ a)


# ---- EVA: two layers, one batch ------------------------------------------------------------------------------------
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(24, 20)
        self.b = nn.Linear(20, 10)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


def spread(rows, columns, values):
    """A matrix with these singular values, so that directions are well apart and ranks are worth moving."""
    u, v = (torch.linalg.qr(torch.randn(n, len(values)))[0] for n in (rows, columns))
    return u * torch.tensor(values) @ v.T


x = spread(64, 24, [9.0, 7.5, 6, 4.5, 3.5, 2.5, 0.3, 0.2])
x -= x.mean(0)
put("eva.x", x)
base = Two()
base.a.weight.data = spread(20, 24, [0.9, 0.2, 0.1, 0.05]) * 0.1
put("eva.weight", base.a.weight)
put("eva.bias", base.a.bias)
put("eva.hidden", torch.tanh(base.a(x)))
for rho in (1.0, 2.0):
    model = Two()
    model.load_state_dict(base.state_dict())
    model = get_peft_model(model, LoraConfig(target_modules=["a", "b"], r=3, lora_alpha=6, init_lora_weights="eva", eva_config=EvaConfig(rho=rho)))
    flat = lambda inputs, model_input, name: inputs[0] if isinstance(inputs, tuple) else inputs  # noqa: E731
    initialize_lora_eva_weights(model, [x], forward_fn=lambda m, i: m(i), prepare_model_inputs_fn=None, prepare_layer_inputs_fn=flat, show_progress_bar=False)
    print("eva", rho, model.peft_config["default"].rank_pattern, model.peft_config["default"].alpha_pattern)
    for name in "ab":
        layer = getattr(model.base_model.model, name)
        if hasattr(layer, "lora_A"):
            put(f"eva.{rho:.0f}.{name}", layer.lora_A["default"].weight)

# ---- conversion to LoRA --------------------------------------------------------------------------------------------
model = randomise(get_peft_model(One(nn.Linear(13, 7)).double(), LoraConfig(target_modules=["lin"], r=5, lora_alpha=3)), 9)
for letter, matrix in zip("AB", matrices(model.base_model.model.lin, "default")):
    put(f"convert.{letter}", matrix)
for rank in (2, 0.9):
    config, tensors = convert_to_lora(model, rank=rank)
    a, b = (tensors[f"base_model.model.lin.lora_{letter}.weight"] for letter in "AB")
    put(f"convert.{rank}", b.double() @ a.double())
    print("convert", rank, tuple(a.shape), config.r, config.lora_alpha, config.rank_pattern, config.alpha_pattern)

# ---- DoRA over those starts: the norms are of what is left of the base plus the update ------------------------------
for scheme in ("pissa", "olora"):
    for rslora in (False, True):
        tag = f"linear.{scheme}{'.rslora' if rslora else ''}"
        base = One(nn.Linear(13, 7))
        base.lin.weight.data, base.lin.bias.data = out[f"{tag}.weight"].clone(), out[f"{tag}.bias"].clone()
        config = LoraConfig(target_modules=["lin"], r=3, lora_alpha=5, init_lora_weights=scheme, use_rslora=rslora, use_dora=True)
        model = get_peft_model(base, config)
        layer = model.base_model.model.lin
        put(f"{tag}.dora.start", layer.lora_magnitude_vector["default"].weight)
        for letter in "AB":
            getattr(layer, f"lora_{letter}")["default"].weight.data = out[f"{tag}.{letter}"].clone()
        magnitude = torch.rand(7, generator=torch.Generator().manual_seed(11)) + 0.5
        layer.lora_magnitude_vector["default"].weight.data = magnitude
        put(f"{tag}.dora.magnitude", magnitude)
        put(f"{tag}.dora.y", model(out[f"{tag}.x"]))

folder = pathlib.Path(__file__).resolve().parent
save_file(out, folder / "values.safetensors")
print(len(out), "tensors", (folder / "values.safetensors").stat().st_size, "bytes")

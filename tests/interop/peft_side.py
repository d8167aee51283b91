"""What real PEFT does with a case: writes its adapters, runs its steps in f64, reads back what graft wrote."""
import json
import shutil
import warnings
from pathlib import Path
from unittest import mock

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.lora.layer import MultiheadAttention
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from peft.utils.error import NoMatchingPeftModuleError
from safetensors.torch import load_file, save_file

import twins

CONFIGS = {"LORA": LoraConfig, "ADALORA": AdaLoraConfig, "IA3": IA3Config}
PREFIXES = ("lora_", "ia3_", "modules_to_save", "trainable_tokens")


def is_target(module):
    """A tuner layer that stands for a target; the rows of trained tokens are not matched but named."""
    return isinstance(module, BaseTunerLayer) and not isinstance(module, TrainableTokensLayer)


class Rejected(Exception):
    """PEFT itself cannot handle a drawn case, or the adapter does not change the output: draw another."""


def config_of(adapter):
    return CONFIGS[adapter["method"]](**adapter["config"])


def is_adapter_parameter(name):
    return any(part.startswith(PREFIXES) for part in name.split("."))


def randomise(model, seed):
    """No adapter parameter, trained bias or module copy keeps its initial value."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "ranknum" in name:
            continue
        if "ia3_" in name or "lora_magnitude" in name:
            twins.fill(parameter, generator, 0.4, 1.0)
        elif "trainable_tokens" in name:
            twins.fill(parameter, generator)
        elif "modules_to_save" in name:
            twins.fill(parameter, generator, (parameter[0].numel() if parameter.dim() > 1 else 4) ** -0.5, 0.1)
        elif "lora_E" in name:
            twins.fill(parameter, generator)
        elif "lora_" in name:
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            twins.fill(parameter, generator, 1.0 if "embedding" in name else fan_in**-0.5)
        elif parameter.requires_grad and name.endswith("bias"):
            twins.fill(parameter, generator, 0.5, 0.2)


def prune(model, config, name, kept):
    """What AdaLoRA's training leaves: a rank pattern and zero singular values. `kept`: path -> list of bool."""
    pattern = {}
    for path, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        path = path.removeprefix("base_model.model.")
        flags = kept[path]
        pattern[f"{path}.lora_E.{name}"] = flags
        with torch.no_grad():
            module.lora_E[name][~torch.tensor(flags)] = 0.0
    config.rank_pattern = pattern


def kept_flags(model, rank, seed):
    """Random flags per layer; one layer loses all its ranks when there are several layers."""
    generator = torch.Generator().manual_seed(seed)
    paths = [p.removeprefix("base_model.model.") for p, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    flags = {}
    for i, path in enumerate(paths):
        keep = torch.rand(rank, generator=generator) < 0.6
        keep[int(torch.randint(rank, (1,), generator=generator))] = True
        flags[path] = [False] * rank if i == 0 and len(paths) > 1 else keep.tolist()
    return flags


def require_moved(file):
    """No tensor of an adapter may be what PEFT initialises it to: zeros or ones."""
    for key, tensor in load_file(file).items():
        if tensor.numel() and bool(((tensor == 0) | (tensor == 1)).all()):
            raise AssertionError(f"{key} was not randomised")


def adapted_by_peft(case, adapter, adapt):
    """adapt(config, base); a draw whose options exclude every module is rejected."""
    try:
        return adapt(config_of(adapter), twins.build(case["model"]))
    except NoMatchingPeftModuleError as error:
        raise Rejected("no module is targeted") from error


def write_adapter(case, adapter, directory):
    """Lets PEFT write one adapter: `pretrained` by save_pretrained, `bare` by the low-level functions."""
    name, seed = adapter["name"], adapter["seed"]
    if adapter["style"] == "bare":
        directory.mkdir(parents=True)
        config_of(adapter).save_pretrained(directory)
        model = adapted_by_peft(case, adapter, lambda config, base: inject_adapter_in_model(config, base, name))
        randomise(model, seed)
        tensors = {k: v.contiguous().clone() for k, v in get_peft_model_state_dict(model, adapter_name=name).items()}
        save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        require_moved(directory / "adapter_model.safetensors")
        return
    model = adapted_by_peft(case, adapter, lambda config, base: get_peft_model(base, config, adapter_name=name))
    randomise(model, seed)
    if adapter["file_dtype"]:
        for key, parameter in model.named_parameters():
            if is_adapter_parameter(key):
                parameter.data = parameter.data.to(twins.DTYPES[adapter["file_dtype"]])
    if adapter["method"] == "ADALORA" and adapter["pruned"]:
        config = model.peft_config[name]
        prune(model.base_model.model, config, name, kept_flags(model, config.init_r, seed))
    written = directory.parent / (directory.name + ".tmp")
    model.save_pretrained(written)
    shutil.move(written if name == "default" else written / name, directory)
    shutil.rmtree(written, ignore_errors=True)
    (directory / "README.md").unlink(missing_ok=True)
    require_moved(directory / "adapter_model.safetensors")


def trained_biases(model, config):
    """The base's own biases that an adapter of this config trains, as BaseTuner chooses them."""
    if getattr(config, "bias", "none") == "all":
        named = model.named_parameters()
        return {n: p for n, p in named if (n == "bias" or n.endswith(".bias")) and not is_adapter_parameter(n)}
    if getattr(config, "bias", "none") == "lora_only":
        layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
        biases = {id(b) for b in (getattr(m, "bias", None) for m in layers) if b is not None}
        return {n: p for n, p in model.named_parameters() if id(p) in biases}
    return {}


def trained_parameters(model, names, configs):
    """What training the adapters of those names changes. PEFT marks ranknum too, where the base is not f32."""
    own = {
        key: parameter
        for key, parameter in model.named_parameters()
        if is_adapter_parameter(key) and set(names) & set(key.split(".")) and "ranknum" not in key
    }
    for name in names:
        own |= trained_biases(model, configs[name])
    return own


def merge_into_attention(self, safe_merge=False, adapter_names=None):
    """LoRA's MultiheadAttention.merge as autograd sees what is computed.

    PEFT's detaches the weight before it adds the next of several adapters, so that the last one alone has gradients, and
    those of the output projection count one of its two updates.
    """
    layer = self.get_base_layer()
    inner = layer.out_proj.get_base_layer()
    for name in adapter_names:
        for owner, key, update in (
            (layer, "in_proj_weight", self.get_delta_weight(name)),
            (inner, "weight", 2 * layer.out_proj.get_delta_weight(name)),
        ):
            merged = getattr(owner, key) + update
            delattr(owner, key)
            setattr(owner, key, merged)
        self.merged_adapters.append(name)
        layer.out_proj.merged_adapters.append(name)


def gradients_of(model, x, upstream, names, configs):
    """Of sum(y * upstream) by what the adapters of those names train, and by the input."""
    model.requires_grad_(False)
    own = trained_parameters(model, names, configs)
    for parameter in own.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    if x.is_floating_point():
        x = x.clone().requires_grad_(True)
    with torch.enable_grad(), mock.patch.object(MultiheadAttention, "merge", merge_into_attention):
        model(x).backward(upstream)
    gradients = {key: parameter.grad for key, parameter in own.items()} | {"input": x.grad}
    model.requires_grad_(False)
    return {key: g.to_dense().clone(memory_format=torch.contiguous_format) for key, g in gradients.items() if g is not None}


def distance(output, expected):
    return float((output.double() - expected).abs().max() / (1 + expected.abs().max()))


def rounding_of(model, x, upstream, gradients, *more):
    """By how much PEFT's own gradients are off in f32: the most of a few draws, with parameters that half a unit in the last
    place has moved, as one draw may be a lucky one."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    x = x.float() if x.is_floating_point() else x
    offs = []
    for draw in range(4):
        numbers = torch.Generator().manual_seed(draw)
        with torch.no_grad():
            for parameter in model.float().parameters():
                moved = torch.rand(parameter.shape, generator=numbers) - 0.5
                parameter.mul_(1 + (torch.finfo(torch.float32).eps if draw else 0) * moved)
        rounded = gradients_of(model, x, upstream.float(), *more)
        with torch.no_grad():
            for name, parameter in model.double().named_parameters():
                parameter.copy_(before[name])
        offs.append(max(distance(rounded[key], g) for key, g in gradients.items() if g.numel()))
        if offs[0] > 1e-3:
            raise Rejected("gradients magnify rounding")
    return torch.tensor(max(offs), dtype=torch.float64)


def harmless(key):
    """PEFT reports its own key `Q.modules_to_save.bias` of bias="all" as unexpected, and originals as missing."""
    return key.endswith((".modules_to_save.bias", ".original_module.bias"))


class PeftSide:
    """Runs the steps of a case on PEFT in f64 and keeps what they give."""

    def __init__(self, case, directory):
        self.case, self.directory = case, directory
        self.model = twins.build(case["model"]).double().eval()
        self.peft = None
        x = load_file(directory / "tensors.safetensors")["input"]
        self.input = x if x.dtype == torch.int64 else x.double()
        self.outputs, self.trees, self.matched, self.keys = {}, {}, {}, {}
        self.upstream, self.gradients, self.rounding = None, {}, None

    def forward(self):
        with torch.no_grad():
            return self.model(self.input)

    def run(self):
        for step in self.case["steps"]:
            getattr(self, "do_" + step["do"])(step)
        return self

    def do_forward(self, step):
        self.outputs[step["to"]] = self.forward()

    def do_disable(self, step):
        """graft restores the base, trained biases included, so this is the plain base, whatever PEFT does."""
        with torch.no_grad():
            self.outputs[step["to"]] = twins.build(self.case["model"]).double().eval()(self.input)

    def do_load(self, step):
        folder, name = str(self.directory / step["dir"]), step["name"]
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        else:
            before = self.peft.base_model.active_adapters
            result = self.peft.load_adapter(folder, name)
            own = [k for k in result.missing_keys if name in k.split(".")]  # PEFT looks for the name as a substring
            missing = [k for k in own if is_adapter_parameter(k) and not harmless(k)]
            unexpected = [k for k in result.unexpected_keys if not harmless(k)]
            if missing or unexpected:
                raise Rejected(f"PEFT misses {missing}, does not expect {unexpected}")
            self.peft.base_model.set_adapter([name] if step["activate"] else before)
        self.model = self.peft.base_model.model
        self.model.eval()

    def do_inject(self, step):
        config = PeftConfig.from_pretrained(str(self.directory / step["config"]))
        tensors = load_file(self.directory / step["state_dict"]) if step["state_dict"] else None
        try:
            self.model = inject_adapter_in_model(config, self.model, step["name"], state_dict=tensors)
        except NoMatchingPeftModuleError as error:
            raise Rejected("no module is targeted") from error
        self.model.eval()
        self.matched[step["to"]] = matched_names(self.model, step["name"])

    def do_set(self, step):
        tensors = load_file(self.directory / step["file"])
        result = set_peft_model_state_dict(self.model, tensors, step["name"])
        unexpected = [k for k in result.unexpected_keys if not harmless(k)]
        if unexpected:
            raise Rejected(f"PEFT does not expect {unexpected}")

    def do_randomise(self, step):
        """graft draws these values: outputs that depend on them are compared after PEFT has read graft's files."""

    def do_set_adapter(self, step):
        if self.peft is not None:
            self.peft.base_model.set_adapter(step["names"])
            return
        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.set_adapter(step["names"])

    def do_set_scale(self, step):
        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.set_scale(step["name"], step["value"])

    def do_delete(self, step):
        self.peft.delete_adapter(step["name"])

    def do_gradients(self, step):
        self.upstream = draw_upstream(self.case, self.forward())
        if not step["read_back"]:
            configs = self.peft.peft_config if self.peft is not None else self.model.peft_config
            self.gradients = gradients_of(self.model, self.input, self.upstream, step["names"], configs)
            self.rounding = rounding_of(self.model, self.input, self.upstream, self.gradients, step["names"], configs)
            if not any(g.any() for g in self.gradients.values()):
                raise Rejected("all gradients are zero")

    def do_tree(self, step):
        self.trees[step["to"]] = str(self.model)

    def do_keys(self, step):
        self.keys[step["to"]] = list(self.model.state_dict())

    def do_save(self, step):
        pass


def draw_upstream(case, output):
    """The gradient of a loss by the output."""
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(case["model"]["seed"] + 2)).double()


def matched_names(model, adapter):
    """Modules by their paths; parameters by theirs, those of a module in the order in which they were wrapped."""
    names, last = [], None
    for path, module in model.named_modules():
        if not is_target(module) or adapter not in adapters_of(module):
            continue
        if not isinstance(module, ParamWrapper):
            names.append(path.replace(".base_layer.", "."))  # an attention's output projection
            continue
        owner = path.replace(".base_layer", "")
        at = len(names) if owner != last else at  # the outermost comes first, and was wrapped last
        names.insert(at, f"{owner}.{module.parameter_name}")
        last = owner
    return names


def adapters_of(layer):
    names = set()
    for attribute in layer.adapter_layer_names:
        names |= set(getattr(layer, attribute, {}).keys())
    return names


def prepare(case, directory):
    """Writes base, input and adapters of a case, then what PEFT makes of them."""
    directory.mkdir(parents=True)
    base = twins.build(case["model"])
    tensors = {"base." + k: v.contiguous().clone() for k, v in base.state_dict().items()}
    x = twins.draw_input(case["model"])
    tensors["input"] = x.double() if case["model"]["dtype"] == "f64" and x.dtype == torch.float32 else x
    save_file(tensors, directory / "tensors.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for adapter in case["adapters"]:
            write_adapter(case, adapter, directory / adapter["dir"])
        for step in case["steps"]:
            if step["do"] == "inject" and step.get("written"):
                config_of(step["written"]).save_pretrained(directory / step["config"])
        side = PeftSide(case, directory).run()
    plain = twins.build(case["model"]).double().eval()(side.input)
    fresh = {s["to"] for s in case["steps"] if s.get("unknown")}
    for name, output in side.outputs.items():
        if not torch.isfinite(output).all() or output.abs().max() > 1e4:
            raise Rejected(f"{name} is out of range")
        changed = (output - plain).abs().max() > 1e-2 * (1 + plain.abs().max())
        if name not in ("base", "disabled") and name not in fresh and not changed:
            raise Rejected(f"{name} does not change the output")
    expected = {"expected." + k: v.detach().contiguous() for k, v in side.outputs.items() if k not in fresh}
    expected |= {"gradients." + k: v for k, v in side.gradients.items()}
    expected |= {k: v for k, v in (("upstream", side.upstream), ("rounding", side.rounding)) if v is not None}
    save_file(tensors | expected, directory / "tensors.safetensors")
    text = dict(case, trees=side.trees, matched=side.matched, keys=side.keys)
    (directory / "case.json").write_text(one_item_per_line(text))
    return text


def one_item_per_line(text):
    lines = []
    for key, value in text.items():
        if isinstance(value, list) and value:
            items = ",\n  ".join(json.dumps(item) for item in value)
            lines.append(f"{json.dumps(key)}: [\n  {items}]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_back_bare(case, directory, saved, name):
    """The same for bare keys, read by PEFT's low-level functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = twins.build(case["model"]).double().eval()
        model = inject_adapter_in_model(PeftConfig.from_pretrained(str(saved)), base, name)
        result = set_peft_model_state_dict(model, load_file(saved / "bare.safetensors"), name)
    return judged(case, result, directory, model.eval(), name, model.peft_config)


def judged(case, result, directory, model, name, configs):
    missing = [k for k in result.missing_keys if is_adapter_parameter(k) and "ranknum" not in k and not harmless(k)]
    unexpected = [k for k in result.unexpected_keys if not harmless(k)]
    tensors = load_file(directory / "tensors.safetensors")
    x = tensors["input"]
    x = x if x.dtype == torch.int64 else x.double()
    with torch.no_grad():
        output = model(x)
    gradients, rounding = {}, None
    if any(s["do"] == "gradients" and s["read_back"] for s in case["steps"]):
        gradients = gradients_of(model, x, tensors["upstream"], [name], configs)
        rounding = rounding_of(model, x, tensors["upstream"], gradients, [name], configs)
    return missing, unexpected, output, gradients, rounding


def read_back(case, directory, saved, name):
    """Loads a folder that graft wrote into PEFT (f64): (missing keys, unexpected keys, output, gradients, their rounding)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = twins.build(case["model"]).double().eval()
        config = PeftConfig.from_pretrained(str(saved))
        model = get_peft_model(base, config, adapter_name=name)
        result = set_peft_model_state_dict(model, load_peft_weights(str(saved), device="cpu"), name)
    return judged(case, result, directory, model.eval().base_model.model, name, model.peft_config)

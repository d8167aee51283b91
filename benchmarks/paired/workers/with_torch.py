"""torch and PEFT as they are, on the processor, without gradients except in the training step."""
import functools
import os
import warnings

from serve import Refused, serve, threads, timed, timed_after

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

torch.set_num_threads(threads)
LLAMA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class OneLayer(torch.nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.site = torch.nn.Linear(n_in, n_out, bias=False)
        self.site.weight.requires_grad_(False)


def lora(job, adapters=1):
    model = OneLayer(job["in"], job["out"])
    for i in range(adapters):
        config = peft.LoraConfig(r=job["r"], lora_alpha=2 * job["r"], target_modules=["site"], init_lora_weights=False,
                                 use_dora=job.get("dora", False))
        model = peft.inject_adapter_in_model(config, model, adapter_name=f"a{i}")
    model.eval()
    return model.site


def inferring(call):
    def seconds(calls):
        with torch.inference_mode():
            return timed(call, calls)
    return seconds


def product(job):
    layer = OneLayer(job["in"], job["out"]).site
    x = torch.randn(job["n"], job["in"])
    if job.get("double"):
        layer, x = layer.double(), x.double()
    return inferring(lambda: layer(x))


def lora_forward(job):
    layer, x = lora(job), torch.randn(job["n"], job["in"])
    return inferring(lambda: layer(x))


def mixed(job):
    layer = lora(job, job["adapters"])
    x = torch.randn(job["n"], job["in"])
    names = [f"a{i}" for i in job["adapter_of_row"]]
    return inferring(lambda: layer(x, adapter_names=names))


def merge(job):
    layer = lora(job)

    def call():
        layer.merge()
        layer.unmerge()
    return inferring(call)


def train(job):
    layer = lora(job)
    x = torch.randn(job["n"], job["in"], requires_grad=True)
    g = torch.randn(job["n"], job["out"])

    def call():
        layer(x).backward(g)
        x.grad = None
        layer.zero_grad(set_to_none=True)
    return functools.partial(timed, call)


class LlamaSites(torch.nn.Module):
    """The linear layers of a Llama of 7 billion parameters; layers of one shape share their weight."""

    def __init__(self):
        super().__init__()
        shapes = {(4096, 4096): None, (4096, 11008): None, (11008, 4096): None}
        for shape in shapes:
            shapes[shape] = torch.nn.Parameter(torch.zeros(shape[1], shape[0]), requires_grad=False)

        def linear(n_in, n_out):
            layer = torch.nn.Linear(n_in, n_out, bias=False, device="meta")
            layer.weight = shapes[n_in, n_out]
            return layer

        def block():
            attention = torch.nn.ModuleDict({name: linear(4096, 4096) for name in LLAMA_TARGETS[:4]})
            mlp = torch.nn.ModuleDict({"gate_proj": linear(4096, 11008), "up_proj": linear(4096, 11008),
                                       "down_proj": linear(11008, 4096)})
            return torch.nn.ModuleDict({"self_attn": attention, "mlp": mlp})

        self.layers = torch.nn.ModuleList(block() for _ in range(32))


def inject(job):
    """Injection into 224 sites; with `folder` also loading that adapter."""
    meta, folder = job["low_cpu_mem_usage"], job.get("folder")
    config = peft.LoraConfig(r=job["r"], target_modules=LLAMA_TARGETS)

    def call(model):
        peft.inject_adapter_in_model(config, model, low_cpu_mem_usage=meta)
        if not folder:
            return
        from safetensors.torch import load_file
        weights = load_file(folder + "/adapter_model.safetensors")
        weights = {key.removeprefix("base_model.model."): tensor for key, tensor in weights.items()}
        outcome = peft.set_peft_model_state_dict(model, weights, low_cpu_mem_usage=meta)
        if outcome.unexpected_keys:
            raise Refused(f"unexpected keys: {outcome.unexpected_keys[:2]}")
    return functools.partial(timed_after, LlamaSites, call)


def llama(job):
    model = transformers.LlamaForCausalLM.from_pretrained(job["base"], dtype=torch.float32, attn_implementation="sdpa")
    if job.get("adapter"):
        model = peft.PeftModel.from_pretrained(model, job["adapter"])
    elif job.get("r"):
        config = peft.LoraConfig(r=job["r"], lora_alpha=2 * job["r"], target_modules=LLAMA_TARGETS,
                                 init_lora_weights=False)
        model = peft.get_peft_model(model, config)
    return model.eval()


def evaluate(job):
    model = llama(job)
    together, length = job["together"], job["length"]
    ids = torch.tensor(job["ids"])
    read, expected = ids[:-1].view(-1, together, length), ids[1:].view(-1, together, length)

    def call():
        total = 0.0
        for some, targets in zip(read, expected):
            logits = model(input_ids=some, use_cache=False).logits
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        return total
    return inferring(call)


def fine_tune(job):
    """Steps of ../../../examples/tales/recipe/adapters.py: 8 windows of 128 tokens at random places, AdamW, clipped."""
    configs = {"lora": peft.LoraConfig(r=8, lora_alpha=16, target_modules=LLAMA_TARGETS),
               "dora": peft.LoraConfig(r=8, lora_alpha=16, target_modules=LLAMA_TARGETS, use_dora=True),
               "ia3": peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])}
    model = transformers.LlamaForCausalLM.from_pretrained(job["base"], dtype=torch.float32, attn_implementation="sdpa")
    model = peft.get_peft_model(model, configs[job["method"]]).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    ids = torch.tensor(job["ids"])

    def call():
        places = torch.randint(len(ids) - 128, (8, 1)) + torch.arange(128)
        logits = model(input_ids=ids[places], use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[places + 1].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return functools.partial(timed, call)


def prompt(job):
    model = llama(job)
    ids = torch.tensor([job["ids"]])
    return inferring(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1))


def generate(job):
    model = llama(job)
    ids = torch.tensor([job["ids"]])
    return inferring(lambda: model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                            max_new_tokens=job["tokens"], min_new_tokens=job["tokens"],
                                            pad_token_id=0, use_cache=True))


JOBS = {"product": product, "lora": lora_forward, "mixed": mixed, "merge": merge, "train": train, "inject": inject,
        "evaluate": evaluate, "fine_tune": fine_tune, "prompt": prompt, "generate": generate}
torch.manual_seed(0)
serve(f"torch {torch.__version__}, peft {peft.__version__}, transformers {transformers.__version__}",
      lambda job: JOBS[job["operation"]](job))

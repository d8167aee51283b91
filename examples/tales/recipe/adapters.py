"""Fine-tunes adapters on Opticks with PEFT and saves them as PEFT does."""
import shutil
import time
from dataclasses import dataclass

import peft
import torch
from transformers import LlamaForCausalLM

from language import random_batch, set_learning_rate

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SEED = 0
BASE_NAME = "tales"


@dataclass(frozen=True)
class Method:
    steps: int
    learning_rate: float
    config: peft.PeftConfig


METHODS = {
    "lora": Method(200, 1e-2, peft.LoraConfig(
        r=8, lora_alpha=16, target_modules=LINEARS, task_type="CAUSAL_LM")),
    "adalora": Method(200, 2e-2, peft.AdaLoraConfig(
        init_r=12, target_r=8, lora_alpha=24, target_modules=LINEARS, task_type="CAUSAL_LM",
        tinit=200 // 6, tfinal=200 // 3, deltaT=200 // 30, total_step=200)),
    "ia3": Method(100, 5e-2, peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM")),
}


def train_adapter(name, base, ids, folder, work):
    """Writes adapter_config.json and adapter_model.safetensors into `folder`.

    Returns the trained model, still in memory, and the run's figures."""
    method = METHODS[name]
    torch.manual_seed(SEED)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    # PEFT copies this name into adapter_config.json; otherwise it would be the folder's path.
    model.name_or_path = BASE_NAME
    model = peft.get_peft_model(model, method.config).train()
    began = time.monotonic()
    losses = run_steps(model, ids, method)
    seconds = time.monotonic() - began

    saved = work / "adapters" / name
    model.save_pretrained(saved, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    # The weights last: their presence says that this stage is done.
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(saved / file, folder / file)
    shutil.rmtree(saved)  # with the empty model card that PEFT adds

    figures = {"steps": method.steps, "learning_rate": method.learning_rate, "seed": SEED,
               "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
               "final_training_loss": round(sum(losses[-20:]) / 20, 4), "seconds": round(seconds, 1)}
    if name == "adalora":
        pattern = model.peft_config["default"].rank_pattern
        figures["ranks"] = {key.removesuffix(".lora_E"): sum(kept) for key, kept in pattern.items()}
    return model, figures


def run_steps(model, ids, method):
    """Trains what requires a gradient; returns the loss of every step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=method.learning_rate, weight_decay=0.0)
    dice = torch.Generator().manual_seed(SEED + 1)
    losses = []
    for step in range(method.steps):
        inputs, targets = random_batch(ids, dice)
        # The model's own loss, because AdaLoRA adds its orthogonality term to it; given as shift_labels,
        # the targets are used as they are.
        loss = model(input_ids=inputs, labels=targets, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        set_learning_rate(optimiser, method.learning_rate, step, method.steps, warmup=method.steps // 15)
        optimiser.step()
        if isinstance(method.config, peft.AdaLoraConfig):
            model.base_model.update_and_allocate(step)  # reads the gradients
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses

"""Trains the base model, a Llama of half a million parameters, and can be stopped and resumed at any time."""
import os
import shutil
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from language import BATCH, WINDOW, random_batch, set_learning_rate

STEPS = 7200
PEAK_LEARNING_RATE = 6e-3
WARMUP = 100
FLOOR = 0.1
SEED = 0
CHECKPOINT_EVERY = 600
REPORT_EVERY = 200


def new_model():
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=1024, hidden_size=96, intermediate_size=256, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, hidden_act="silu",
        max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=True, initializer_range=0.05,
        bos_token_id=None, eos_token_id=None, use_cache=True))


def new_optimiser(model):
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95))


class Training:
    """Everything a training run consists of: all of it goes into a checkpoint and comes back."""

    def __init__(self):
        torch.manual_seed(SEED)
        self.model = new_model()
        self.optimiser = new_optimiser(self.model)
        self.dice = torch.Generator().manual_seed(SEED + 1)
        self.step, self.mean_loss, self.seconds = 0, 0.0, 0.0

    def save(self, path):
        unfinished = path.with_suffix(".unfinished")
        torch.save({"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
                    "dice": self.dice.get_state(), "torch": torch.get_rng_state(), "step": self.step,
                    "mean_loss": self.mean_loss, "seconds": self.seconds}, unfinished)
        os.replace(unfinished, path)

    def load(self, path):
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.dice.set_state(state["dice"])
        torch.set_rng_state(state["torch"])
        self.step, self.mean_loss, self.seconds = state["step"], state["mean_loss"], state["seconds"]

    def advance(self, ids, steps):
        began = time.monotonic()
        inputs, targets = random_batch(ids, self.dice)
        logits = self.model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        set_learning_rate(self.optimiser, PEAK_LEARNING_RATE, self.step, steps, WARMUP, FLOOR)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        self.mean_loss += (loss.item() - self.mean_loss) / min(self.step, 50)
        self.seconds += time.monotonic() - began


def train_base(ids, folder, work, steps=STEPS):
    """Writes config.json, generation_config.json and model.safetensors (bf16) into `folder`.

    A checkpoint in `work` is continued; the result is the same file, byte for byte, as without a stop."""
    checkpoint = work / f"base-{steps}.checkpoint"
    training = Training()
    if checkpoint.exists():
        training.load(checkpoint)
        print(f"base: continues at step {training.step}", flush=True)
    while training.step < steps:
        training.advance(ids, steps)
        if training.step % REPORT_EVERY == 0:
            rate = training.step * BATCH * WINDOW / training.seconds
            print(f"base: step {training.step:5} loss {training.mean_loss:.3f} {rate:,.0f} tokens/s",
                  flush=True)
        if training.step % CHECKPOINT_EVERY == 0:
            training.save(checkpoint)
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    saved = work / "base"
    training.model.to(torch.bfloat16).save_pretrained(saved)
    folder.mkdir(parents=True, exist_ok=True)
    # The weights last: their presence says that this stage is done.
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(saved / name, folder / name)
    shutil.rmtree(saved)
    return {"parameters": parameters, "training_tokens": len(ids), "steps": steps,
            "learning_rate": PEAK_LEARNING_RATE, "seed": SEED,
            "final_training_loss": round(training.mean_loss, 4), "seconds": round(training.seconds)}

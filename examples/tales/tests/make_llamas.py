#!/usr/bin/env python3
"""Writes llamas/: tiny Llamas of other kinds than tales, each with an adapter, and what PEFT computes."""
import json
import math
import pathlib
import shutil

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent / "llamas"
WINDOW, WINDOWS, PROMPT, CONTINUATION = 128, 2, 5, 12
SMALL = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 4, "initializer_range": 0.4, "bos_token_id": None, "eos_token_id": None}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    # Narrow weights in several files, biases, grouped and wide heads, another theta, a head of its own.
    "half_shards": (torch.float16, "4KB",
                    {"num_key_value_heads": 2, "head_dim": 8, "attention_bias": True, "mlp_bias": True,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
                    peft.LoraConfig(r=3, lora_alpha=5, target_modules=LINEARS, init_lora_weights=False)),
    "single_tied": (torch.float32, "1MB", {"num_key_value_heads": 4, "tie_word_embeddings": True},
                    peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"],
                                   feedforward_modules=["down_proj"], init_ia3_weights=False)),
    "brain_untied": (torch.bfloat16, "1MB", {"num_key_value_heads": 1, "rms_norm_eps": 0.1},
                     peft.AdaLoraConfig(init_r=3, target_r=2, lora_alpha=6, total_step=10,
                                        target_modules=LINEARS, init_lora_weights=False)),
    # What the adapter trains beside its own matrices is f32 in its file, the base's is not.
    "brain_saved": (torch.bfloat16, "1MB", {"num_key_value_heads": 2, "attention_bias": True},
                    peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"], bias="all",
                                    modules_to_save=["lm_head"], init_lora_weights=False)),
}


@torch.no_grad()
def measure(model, ids):
    total = 0.0
    for i in range(WINDOWS):
        window = ids[WINDOW * i:WINDOW * (i + 1) + 1]
        logits = model(input_ids=window[None, :-1]).logits[0].double()
        total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    prompt = ids[None, :PROMPT]
    output = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt),
                            max_new_tokens=CONTINUATION, do_sample=False)
    return {"perplexity": math.exp(total / (WINDOWS * WINDOW)), "continuation": output[0, PROMPT:].tolist()}


def make(number, name, dtype, shard_size, fields, adapter):
    torch.manual_seed(number)
    folder = HERE / name
    model = LlamaForCausalLM(LlamaConfig(**SMALL, **fields))
    for key, parameter in model.named_parameters():
        if key.endswith("bias") or "norm" in key:  # would be all 0 or 1
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "generation_config.json").unlink()
    ids = torch.randint(0, SMALL["vocab_size"], (WINDOW * WINDOWS + 1,))
    (folder / "ids.txt").write_text(" ".join(map(str, ids.tolist())) + "\n")

    base = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    expected = {"base": measure(base, ids)}
    base.name_or_path = name
    adapted = peft.get_peft_model(base, adapter)
    for key, parameter in adapted.named_parameters():
        if "ia3_l" in key:
            parameter.data = 1 + 0.5 * torch.randn_like(parameter)
        elif "lora_" in key and parameter.is_floating_point():
            parameter.data = 0.2 * torch.randn_like(parameter)
        elif parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    base = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    expected["adapter"] = measure(peft.PeftModel.from_pretrained(base, folder / "adapter").eval(), ids)
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")
    print(name, expected)


if __name__ == "__main__":
    shutil.rmtree(HERE, ignore_errors=True)
    for number, (name, case) in enumerate(CASES.items()):
        make(number, name, *case)

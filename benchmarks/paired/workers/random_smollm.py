"""Writes a model of SmolLM2-135M's shape with random values and a LoRA adapter of r = 16 on all its linear layers into the
folder that is named: what a forward takes does not depend on the values, so speed can be measured where there is no download."""
import pathlib
import sys

import peft
import torch
import transformers

folder = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
# https://huggingface.co/HuggingFaceTB/SmolLM2-135M/blob/main/config.json, without tokens that end a text
shape = transformers.LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
    vocab_size=49152, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True,
    initializer_range=0.041666666666666664, bos_token_id=None, eos_token_id=None)
model = transformers.LlamaForCausalLM(shape).float()
model.save_pretrained(folder)
config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
peft.get_peft_model(model, config).save_pretrained(folder / "adapter")

"""Makes transformers compute a Llama in float64 throughout.

`model.double()` alone leaves the normalisation, the softmax and the rotary angles in float32."""
import contextlib
import types
from unittest import mock

import torch
from transformers.models.llama import modeling_llama


def normalise(self, states):
    return self.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def rotate(self, states, position_ids):
    width = self.config.head_dim
    theta = self.config.rope_parameters["rope_theta"]
    frequencies = theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = (position_ids[..., None].double() * frequencies).repeat(1, 1, 2)
    return angles.cos(), angles.sin()


def attend(module, query, key, value, attention_mask, scaling, **_):
    key = modeling_llama.repeat_kv(key, module.num_key_value_groups)
    value = modeling_llama.repeat_kv(value, module.num_key_value_groups)
    scores = query @ key.transpose(2, 3) * scaling
    weights = torch.softmax(scores + attention_mask, dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


@contextlib.contextmanager
def in_float64(model):
    """While open, `model`, loaded with eager attention, computes in float64; its parameters stay so."""
    model.double()
    replaced = []
    for module in model.modules():
        if isinstance(module, modeling_llama.LlamaRMSNorm):
            module.forward = types.MethodType(normalise, module)
            replaced.append(module)
        elif isinstance(module, modeling_llama.LlamaRotaryEmbedding):
            module.forward = types.MethodType(rotate, module)
            replaced.append(module)
    with mock.patch.object(modeling_llama, "eager_attention_forward", attend):
        try:
            yield model
        finally:
            for module in replaced:
                del module.forward

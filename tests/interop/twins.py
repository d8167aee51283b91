"""The model types of models.hpp as torch modules: same class names, member names, order and forward."""
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Mlp(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        bias = sizes["bias"]
        self.fc1 = nn.Linear(sizes["in"], sizes["hidden"], bias=bias)
        self.norm = nn.LayerNorm(sizes["hidden"])
        self.fc2 = nn.Linear(sizes["hidden"], sizes["middle"], bias=bias)
        self.head = nn.Linear(sizes["middle"], sizes["out"], bias=bias)

    def forward(self, x):
        return self.head(torch.tanh(self.fc2(self.norm(torch.tanh(self.fc1(x))))))


class Attention(nn.Module):
    """Not attention, but its four projections in one expression without a sequence axis."""

    def __init__(self, sizes):
        super().__init__()
        hidden, inner, bias = sizes["hidden"], sizes["inner"], sizes["bias"]
        self.q_proj = nn.Linear(hidden, inner, bias=bias)
        self.k_proj = nn.Linear(hidden, inner, bias=bias)
        self.v_proj = nn.Linear(hidden, inner, bias=bias)
        self.o_proj = nn.Linear(inner, hidden, bias=bias)

    def forward(self, x):
        return self.o_proj(torch.tanh(self.q_proj(x) * self.k_proj(x) + self.v_proj(x)))


class FeedForward(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        hidden, wide, bias = sizes["hidden"], sizes["wide"], sizes["bias"]
        self.gate_proj = nn.Linear(hidden, wide, bias=bias)
        self.up_proj = nn.Linear(hidden, wide, bias=bias)
        self.down_proj = nn.Linear(wide, hidden, bias=bias)

    def forward(self, x):
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * torch.tanh(self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.self_attn = Attention(sizes)
        self.mlp = FeedForward(sizes)
        self.norm = nn.RMSNorm(sizes["hidden"], eps=1e-6)

    def forward(self, x):
        h = x + self.self_attn(self.norm(x))
        return h + self.mlp(self.norm(h))


class Body(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.embed_tokens = nn.Embedding(
            sizes["vocabulary"],
            sizes["hidden"],
            padding_idx=sizes["padding_idx"],
            max_norm=sizes["max_norm"],
            norm_type=sizes["norm_type"],
            scale_grad_by_freq=sizes.get("scale_grad_by_freq", False),
            sparse=sizes.get("sparse", False),
        )
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes["layers"]))

    def forward(self, ids):
        h = self.embed_tokens(ids)
        for layer in self.layers:
            h = layer(h)
        return h


class Decoder(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.model = Body(sizes)
        self.lm_head = nn.Linear(sizes["hidden"], sizes["vocabulary"], bias=False)

    def forward(self, ids):
        return self.lm_head(self.model(ids))


class TiedDecoder(Decoder):
    """A head on the embedding's weight, said as transformers says it: PEFT asks the model's config."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.lm_head.weight = self.model.embed_tokens.weight
        self.config = {"tie_word_embeddings": True, "model_type": "twin"}
        self._tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def _get_name(self):
        return "Decoder"

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head


class Attentive(nn.Module):
    """torch's own attention, to itself and to what another layer remembers."""

    def __init__(self, sizes):
        super().__init__()
        hidden, options = sizes["hidden"], {"bias": sizes["bias"], "batch_first": True}
        self.fc = nn.Linear(sizes["in"], hidden)
        self.memory = nn.Linear(sizes["in"], hidden)
        self.self_attn = nn.MultiheadAttention(hidden, sizes["heads"], **options)
        self.cross_attn = nn.MultiheadAttention(hidden, sizes["heads"], **options)
        self.head = nn.Linear(hidden, sizes["out"])
        self.causal = sizes["causal"]

    def forward(self, x):
        h, memory = torch.tanh(self.fc(x)), torch.tanh(self.memory(x))
        rows = x.shape[-2]
        unseen = torch.ones(rows, rows, dtype=torch.bool).triu(1) if self.causal else None
        h = h + self.self_attn(h, h, h, attn_mask=unseen, need_weights=False)[0]
        h = h + self.cross_attn(h, memory, memory, need_weights=False)[0]
        return self.head(h)


class Transposed(nn.Module):
    """transformers' Conv1D, whose weight is (in, out)."""

    def __init__(self, sizes):
        super().__init__()
        self.c_fc = Conv1D(sizes["hidden"], sizes["in"])
        self.c_proj = Conv1D(sizes["out"], sizes["hidden"])

    def forward(self, x):
        return self.c_proj(torch.tanh(self.c_fc(x)))


class UserTable(nn.Embedding):
    pass


class UserLinear(nn.Linear):
    pass


class UserModel(nn.Module):
    """In C++ every layer of it is the user's own struct."""

    def __init__(self, sizes):
        super().__init__()
        self.table = UserTable(sizes["vocabulary"], sizes["hidden"])
        self.project = UserLinear(sizes["hidden"], sizes["out"], bias=sizes["bias"])

    def forward(self, ids):
        return self.project(torch.tanh(self.table(ids)))


def conv(sizes):
    options = {k: sizes[k] for k in ("stride", "padding", "dilation", "groups", "padding_mode", "bias")}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return CONVS[len(sizes["kernel"])](sizes["in"], sizes["out"], tuple(sizes["kernel"]), **options)


class ConvNet(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.conv1 = conv(sizes["conv1"])
        self.conv2 = conv(sizes["conv2"])

    def forward(self, x):
        return self.conv2(torch.tanh(self.conv1(x)))


class UserConvNet(nn.Module):
    """In C++ the convolution is the user's own struct."""

    def __init__(self, sizes):
        super().__init__()
        self.conv = conv(sizes["conv"])

    def forward(self, x):
        return torch.tanh(self.conv(x))


def by_expert(x, stack, experts, transposed=False):
    """Every row of x times the matrix of its expert."""
    return torch.stack([row @ (stack[e] if transposed else stack[e].T) for row, e in zip(x, experts)])


class Experts(nn.Module):
    """The stacked experts of Mixtral and its like: (experts, out, in)."""

    is_transposed = False

    def __init__(self, sizes):
        super().__init__()
        experts, hidden, inner = sizes["experts"], sizes["hidden"], sizes["inner"]
        up, down = (experts, 2 * inner, hidden), (experts, hidden, inner)
        if self.is_transposed:
            up, down = (experts, hidden, 2 * inner), (experts, inner, hidden)
        self.gate_up_proj = nn.Parameter(torch.zeros(up))
        self.down_proj = nn.Parameter(torch.zeros(down))

    def forward(self, x, experts):
        gate, up = by_expert(x, self.gate_up_proj, experts, self.is_transposed).chunk(2, -1)
        return by_expert(nn.functional.silu(gate) * up, self.down_proj, experts, self.is_transposed)


class TransposedExperts(Experts):
    """Those of gpt-oss: (experts, in, out)."""

    is_transposed = True


class Mixer(nn.Module):
    """Bare matrices, listed in another order than their names have; tail multiplies from the left."""

    def __init__(self, sizes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(sizes["inner"], sizes["hidden"]))
        self.tail = nn.Parameter(torch.zeros(sizes["inner"], sizes["hidden"]))

    def forward(self, x):
        return torch.tanh(x @ self.weight.T) @ self.tail


class Router(nn.Module):
    """A mixture of experts whose router is a formula: two experts for every row."""

    def __init__(self, sizes):
        super().__init__()
        self.count = sizes["experts"]
        self.fc = nn.Linear(sizes["in"], sizes["hidden"])
        self.mixer = Mixer(sizes)
        self.experts = (TransposedExperts if sizes["transposed"] else Experts)(sizes)
        self.head = nn.Linear(sizes["hidden"], sizes["out"])

    def forward(self, x):
        h = torch.tanh(self.fc(x))
        h = h + self.mixer(h)
        first = [(3 * i + 1) % self.count for i in range(len(x))]
        second = [(i * i) % self.count for i in range(len(x))]
        return self.head(h + self.experts(h, first) + 0.5 * self.experts(h, second))


TYPES = {
    "experts": Router,
    "mlp": Mlp,
    "decoder": Decoder,
    "attentive": Attentive,
    "transposed": Transposed,
    "user": UserModel,
    "conv": ConvNet,
    "user_conv": UserConvNet,
}


def fill(tensor, generator, scale=1.0, offset=0.0):
    """Normal values drawn in f32, whatever the tensor's dtype, so that a seed means the same in all."""
    values = torch.randn(tensor.shape, generator=generator) * scale + offset
    with torch.no_grad():
        tensor.copy_(values)


def build(model):
    """A twin with seeded weights. All layers but normalisations have the case's dtype, these f32 (f64 if that is f64)."""
    twin = (TiedDecoder if model["sizes"].get("tied") else TYPES[model["type"]])(model["sizes"])
    generator = torch.Generator().manual_seed(model["seed"])
    for name, parameter in twin.named_parameters():
        if "norm" in name:
            fill(parameter, generator, 0.3, 1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            fill(parameter, generator, 0.5)
        elif isinstance(twin.get_submodule(name.rpartition(".")[0]), nn.Embedding):
            fill(parameter, generator)
        else:
            fill(parameter, generator, (parameter[0].numel() if parameter.dim() > 1 else 1) ** -0.5)
    dtype = DTYPES[model["dtype"]]
    if dtype == torch.float64:
        return twin.double().eval()
    for module in twin.modules():
        if isinstance(module, (nn.Linear, nn.Embedding, nn.MultiheadAttention, *CONVS.values())):
            module.to(dtype)
    return twin.eval()


def draw_input(model):
    generator = torch.Generator().manual_seed(model["seed"] + 1)
    sizes = model["sizes"]
    if "vocabulary" in sizes:
        ids = torch.randint(sizes["vocabulary"], (model["rows"],), generator=generator)
        if sizes.get("padding_idx") is not None:
            ids[0] = sizes["padding_idx"]
        return ids
    if "input_shape" in model:
        return torch.randn(model["input_shape"], generator=generator)
    return torch.randn(model["rows"], sizes["in"], generator=generator)

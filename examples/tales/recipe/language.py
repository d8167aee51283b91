"""What every stage shares: token ids, training batches, the learning rate's course, perplexity."""
import math

import torch

WINDOW = 128
BATCH = 8
AUSTEN_WINDOWS = 256


def encode(tokenizer, path):
    """The token ids of a text file."""
    return torch.tensor(tokenizer(path.read_text(encoding="ascii"))["input_ids"])


def random_batch(ids, dice):
    """8 windows of 128 tokens at random places, and the tokens that follow each of them."""
    starts = torch.randint(len(ids) - WINDOW, (BATCH, 1), generator=dice)
    places = starts + torch.arange(WINDOW)
    return ids[places], ids[places + 1]


def set_learning_rate(optimiser, peak, step, steps, warmup, floor=0.0):
    """Linear from peak / warmup to peak, then along a cosine down to floor * peak."""
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        progress = (step - warmup) / (steps - warmup)
        factor = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimiser.param_groups:
        group["lr"] = peak * factor


@torch.no_grad()
def perplexity(model, ids, windows=None):
    """exp of the mean loss over whole windows: all of them, or the first `windows`.

    Window i is a sequence of its own: it reads tokens [128 i, 128 i + 128) from position 0 on and is
    scored on tokens [128 i + 1, 128 i + 129). So each token but the first is scored once, with 1 to 128
    tokens of context; what is left after the last whole window is dropped. Losses are summed in float64."""
    available = (len(ids) - 1) // WINDOW
    count = min(available, windows or available)
    inputs = ids[:count * WINDOW].view(count, WINDOW)
    targets = ids[1:count * WINDOW + 1].view(count, WINDOW)
    was_training = model.training
    model.eval()
    total = 0.0
    for first in range(0, count, BATCH):
        logits = model(inputs[first:first + BATCH]).logits.double()
        total += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[first:first + BATCH].flatten(), reduction="sum").item()
    model.train(was_training)
    return math.exp(total / (count * WINDOW))

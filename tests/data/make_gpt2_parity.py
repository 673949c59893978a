#!/usr/bin/env python3
"""Write the files of gpt2_parity: a tiny GPT-2 by PyTorch, to check ours against.

    python3 make_gpt2_parity.py FOLDER      (needs only torch)

The model is spelled out below from elementary operations, in float64; autograd and
torch.optim.AdamW do the rest. Three files are checkpoints with Hugging Face's names and layout
([in, out] for the Conv1D weights of attention and MLP):

    initial.safetensors    float32  parameters before training
    gradients.safetensors  float64  gradients of the first loss
    after.safetensors      float32  parameters after ten steps of AdamW, rounded from float64

and run.safetensors holds the rest:

    inputs, targets   int32   [B, T]
    weights           float32 [B, T], some of them 0
    logits            float64 [B, T, V] of the initial parameters
    loss              float64 [11]: before each of ten steps, and after the last
    norm              float64 [10]: gradient norm before clipping
    rate              float64 [10]: learning rate, linear warm-up then a half cosine

Its metadata tells the settings of AdamW, and the error of the same run in float32 as a share of each
tensor's norm: what a careful float32 implementation may be away.
"""
import json
import math
import struct
import sys

import torch

LAYERS, WIDTH, HEADS, VOCABULARY, POSITIONS, BATCH, LENGTH = 2, 32, 4, 101, 20, 2, 14
STEPS, WARMUP, PEAK, FLOOR = 10, 4, 2e-3, 2e-4
BETAS, EPSILON, DECAY, MAX_NORM = (0.9, 0.95), 1e-8, 0.1, 1.0


def initial():
    torch.manual_seed(20)
    c, parameters = WIDTH, {}

    def weight(name, *shape):
        parameters[name] = 0.1 * torch.randn(*shape)

    def norm(name):
        parameters[name + ".weight"] = 1 + 0.1 * torch.randn(c)
        parameters[name + ".bias"] = 0.1 * torch.randn(c)

    weight("wte.weight", VOCABULARY, c)
    weight("wpe.weight", POSITIONS, c)
    for i in range(LAYERS):
        block = f"h.{i}."
        norm(block + "ln_1")
        weight(block + "attn.c_attn.weight", c, 3 * c)
        weight(block + "attn.c_attn.bias", 3 * c)
        weight(block + "attn.c_proj.weight", c, c)
        weight(block + "attn.c_proj.bias", c)
        norm(block + "ln_2")
        weight(block + "mlp.c_fc.weight", c, 4 * c)
        weight(block + "mlp.c_fc.bias", 4 * c)
        weight(block + "mlp.c_proj.weight", 4 * c, c)
        weight(block + "mlp.c_proj.bias", c)
    norm("ln_f")
    return parameters


def batch():
    generator = torch.Generator().manual_seed(21)
    inputs = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=generator)
    targets = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=generator)
    inputs[1, 3:6] = inputs[0, 0]  # a token that occurs often
    weights = torch.ones(BATCH, LENGTH)
    weights[0, :4] = 0
    weights[1, 9:] = 0
    weights[1, 2] = 0.5
    return inputs, targets, weights


def layer_norm(x, gain, bias):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + bias


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(x, p, block):
    b, t, c = x.shape
    d = c // HEADS
    qkv = x @ p[block + "attn.c_attn.weight"] + p[block + "attn.c_attn.bias"]
    q, k, v = (s.reshape(b, t, HEADS, d).transpose(1, 2) for s in qkv.split(c, -1))
    scores = q @ k.transpose(-1, -2) / math.sqrt(d)
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    o = scores.masked_fill(future, -math.inf).softmax(-1) @ v
    o = o.transpose(1, 2).reshape(b, t, c)
    return o @ p[block + "attn.c_proj.weight"] + p[block + "attn.c_proj.bias"]


def forward(p, inputs):
    x = p["wte.weight"][inputs] + p["wpe.weight"][: inputs.shape[1]]
    for i in range(LAYERS):
        h = f"h.{i}."
        x = x + attention(layer_norm(x, p[h + "ln_1.weight"], p[h + "ln_1.bias"]), p, h)
        y = layer_norm(x, p[h + "ln_2.weight"], p[h + "ln_2.bias"])
        y = gelu(y @ p[h + "mlp.c_fc.weight"] + p[h + "mlp.c_fc.bias"])
        x = x + y @ p[h + "mlp.c_proj.weight"] + p[h + "mlp.c_proj.bias"]
    return layer_norm(x, p["ln_f.weight"], p["ln_f.bias"]) @ p["wte.weight"].T


def loss_of(logits, targets, weights):
    nll = torch.logsumexp(logits, -1) - logits.gather(-1, targets[..., None])[..., 0]
    return (weights * nll).sum() / weights.sum()


def rate(step):
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    done = (step - WARMUP) / (STEPS - 1 - WARMUP)
    return FLOOR + (PEAK - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def run(dtype):
    """The four files' tensors."""
    inputs, targets, weights = batch()
    weights = weights.to(dtype)
    p = {name: value.to(dtype).clone().requires_grad_() for name, value in initial().items()}
    optimizer = torch.optim.AdamW(
        [{"params": [v for v in p.values() if v.dim() >= 2], "weight_decay": DECAY},
         {"params": [v for v in p.values() if v.dim() < 2], "weight_decay": 0.0}],
        betas=BETAS, eps=EPSILON)
    losses, norms = [], []
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        logits = forward(p, inputs)
        loss = loss_of(logits, targets, weights)
        losses.append(loss.item())
        if step == STEPS:
            break
        loss.backward()
        if step == 0:
            first_logits = logits.detach().clone()
            gradients = {name: v.grad.clone() for name, v in p.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(list(p.values()), MAX_NORM).item())
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
    return {
        "initial": initial(),
        "gradients": gradients,
        "after": {name: v.detach().clone() for name, v in p.items()},
        "run": {"logits": first_logits,
                "loss": torch.tensor(losses, dtype=torch.float64),
                "norm": torch.tensor(norms, dtype=torch.float64)},
    }


def errors(got, want):
    """The largest error of each kind, as a share of the tensor's norm.

    The key's bias has no gradient in exact arithmetic: gradients get a floor of a hundredth of
    the largest norm, and AdamW makes steps of any size out of what rounding leaves, so it is
    left out of the parameters after them.
    """
    worst = {}
    floor = 0.01 * max(v.norm().item() for v in want["gradients"].values())
    for kind in ("gradients", "after", "run"):
        for name, b in want[kind].items():
            a = got[kind][name].double()
            if kind == "after" and name.endswith("c_attn.bias"):
                keep = [i for i in range(3 * WIDTH) if not WIDTH <= i < 2 * WIDTH]
                a, b = a[keep], b[keep]
            scale = max(b.norm().item(), floor if kind == "gradients" else 0.0)
            title = name if kind == "run" else kind
            worst[title] = max(worst.get(title, 0.0), (a - b).norm().item() / scale)
    return worst


def write(path, tensors, metadata):
    names = {torch.float32: "F32", torch.float64: "F64", torch.int32: "I32"}
    codes = {torch.float32: "f", torch.float64: "d", torch.int32: "i"}
    header, data = {"__metadata__": metadata}, b""
    for name, t in tensors.items():
        flat = t.reshape(-1).tolist()
        packed = struct.pack(f"<{len(flat)}{codes[t.dtype]}", *flat)
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape),
                        "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    want = run(torch.float64)
    inputs, targets, weights = batch()
    model = dict(layers=LAYERS, heads=HEADS, d_model=WIDTH, positions=POSITIONS,
                 vocabulary=VOCABULARY, mechanism="softmax", options="", is_causal="true")
    settings = dict(warmup=WARMUP, steps=STEPS, peak=PEAK, floor=FLOOR, beta1=BETAS[0],
                    beta2=BETAS[1], epsilon=EPSILON, decay=DECAY, max_norm=MAX_NORM,
                    torch=torch.__version__)
    model, metadata = ({k: str(v) for k, v in d.items()} for d in (model, settings))
    for kind, error in errors(run(torch.float32), want).items():
        metadata["float32 error of " + kind] = f"{error:.2g}"
        print(f"float32 error of {kind}: {error:.2g}")
    want["run"].update(
        inputs=inputs.int(), targets=targets.int(), weights=weights,
        rate=torch.tensor([rate(s) for s in range(STEPS)], dtype=torch.float64))
    want["after"] = {name: value.float() for name, value in want["after"].items()}
    print("losses", [round(x, 6) for x in want["run"]["loss"].tolist()])
    print("norms", [round(x, 4) for x in want["run"]["norm"].tolist()])
    for name, tensors in want.items():
        write(f"{sys.argv[1]}/{name}.safetensors", tensors, metadata if name == "run" else model)


if __name__ == "__main__":
    main()

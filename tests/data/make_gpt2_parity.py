#!/usr/bin/env python3
"""Write gpt2_parity.safetensors: a tiny GPT-2 by PyTorch, to check ours against.

One file, written by this script alone (needs only torch):

    python3 make_gpt2_parity.py gpt2_parity.safetensors

The model is spelled out below from elementary operations, in float64; autograd and
torch.optim.AdamW do the rest. Tensors, with Hugging Face's names and layout ([in, out] for the
Conv1D weights of attention and MLP):

    <name>            float32  initial parameters, a checkpoint by themselves
    data.inputs, data.targets  int32 [B, T];  data.weights float32 [B, T], some of them 0
    want.logits       float64  of the initial parameters
    want.loss         float64  [11]: before each of ten steps, and after the last
    want.norm         float64  [10]: gradient norm before clipping
    want.rate         float64  [10]: learning rate, linear warm-up then a half cosine
    grad.<name>       float64  gradients of the first loss
    after.<name>      float32  parameters after ten steps, from the float64 run

The metadata tells the settings, and the error of the same run in float32, as a share of each
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
    inputs, targets, weights = batch()
    weights = weights.to(dtype)
    p = {name: value.to(dtype).clone().requires_grad_() for name, value in initial().items()}
    decayed = [v for v in p.values() if v.dim() >= 2]
    plain = [v for v in p.values() if v.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}],
        betas=BETAS, eps=EPSILON)
    out, losses, norms = {}, [], []
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        logits = forward(p, inputs)
        loss = loss_of(logits, targets, weights)
        losses.append(loss.item())
        if step == STEPS:
            break
        loss.backward()
        if step == 0:
            out["want.logits"] = logits.detach().clone()
            out.update({"grad." + name: v.grad.clone() for name, v in p.items()})
        norms.append(torch.nn.utils.clip_grad_norm_(list(p.values()), MAX_NORM).item())
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
    out["want.loss"] = torch.tensor(losses, dtype=torch.float64)
    out["want.norm"] = torch.tensor(norms, dtype=torch.float64)
    out.update({"after." + name: v.detach().clone() for name, v in p.items()})
    return out


def errors(got, want):
    """The largest error of each kind, as a share of the tensor's norm; wk.bias has none."""
    worst = {}
    floor = 0.01 * max(v.norm().item() for n, v in want.items() if n.startswith("grad."))
    for name in want:
        kind = name.split(".")[0] if not name.startswith("want.") else name
        a, b = got[name].double(), want[name].double()
        if name.startswith("after.") and name.endswith("c_attn.bias"):
            keep = [i for i in range(3 * WIDTH) if not WIDTH <= i < 2 * WIDTH]
            a, b = a[keep], b[keep]
        scale = max(b.norm().item(), floor if kind == "grad" else 0.0)
        worst[kind] = max(worst.get(kind, 0.0), (a - b).norm().item() / scale)
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
    tensors = dict(initial())
    tensors["data.inputs"], tensors["data.targets"] = inputs.int(), targets.int()
    tensors["data.weights"] = weights
    tensors["want.rate"] = torch.tensor([rate(s) for s in range(STEPS)], dtype=torch.float64)
    for name, value in want.items():
        tensors[name] = value.float() if name.startswith("after.") else value
    settings = dict(layers=LAYERS, d_model=WIDTH, heads=HEADS, vocabulary=VOCABULARY,
                    positions=POSITIONS, warmup=WARMUP, steps=STEPS, peak=PEAK, floor=FLOOR,
                    beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON, decay=DECAY,
                    max_norm=MAX_NORM)
    metadata = {name: str(value) for name, value in settings.items()}
    metadata["torch"] = torch.__version__
    for kind, error in errors(run(torch.float32), want).items():
        metadata["float32 error of " + kind] = f"{error:.2g}"
        print(f"float32 error of {kind}: {error:.2g}")
    print("losses", [round(x, 6) for x in want["want.loss"].tolist()])
    print("norms", [round(x, 4) for x in want["want.norm"].tolist()])
    write(sys.argv[1], tensors, metadata)


if __name__ == "__main__":
    main()

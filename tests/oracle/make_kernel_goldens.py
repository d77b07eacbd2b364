"""Forward results and gradients of every kernel, by PyTorch in double precision.

Writes tests/golden/kernels/kernels.f32 (all arrays, one after the other) and kernels.index (a line "name count" for each).
With --check nothing is written: the committed files are compared with what PyTorch gives now.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden" / "kernels"


class Goldens:
    def __init__(self):
        self.arrays = {}

    def add(self, case, **tensors):
        for name, tensor in tensors.items():
            self.arrays[f"{case}.{name}"] = tensor.detach().to(torch.float32).reshape(-1).numpy()


def leaf(*shape, scale=1.0):
    """A random input that f32 holds exactly, so that both sides start from the same values."""
    return (torch.randn(*shape) * scale).float().double().requires_grad_()


def backward(y):
    dy = torch.randn(y.shape).float().double()
    y.backward(dy)
    return dy


def norms(goldens):
    x, weight, bias = leaf(13, 37), leaf(37), leaf(37)
    y = weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    dy = backward(y)
    goldens.add("rms_norm", x=x, weight=weight, y=y, dy=dy, dx=x.grad, dweight=weight.grad)
    x, weight = leaf(70, 83), leaf(83)
    y = torch.nn.functional.layer_norm(x, (83,), weight, bias := leaf(83), 1e-5)
    dy = backward(y)
    goldens.add("layer_norm", x=x, weight=weight, bias=bias, y=y, dy=dy, dx=x.grad, dweight=weight.grad, dbias=bias.grad)


def rope(goldens):
    rows, heads, dim = 11, 3, 22
    x = leaf(rows, heads, dim)
    positions = torch.randint(0, 3000, (rows,))
    frequencies = (10000.0 ** (-torch.arange(0, dim, 2).double() / dim)).float()
    angles = (positions.float()[:, None] * frequencies[None, :]).double()
    cos, sin = torch.cat([angles.cos()] * 2, -1)[:, None], torch.cat([angles.sin()] * 2, -1)[:, None]
    half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
    y = x * cos + half * sin
    dy = backward(y)
    goldens.add("rope", x=x, positions=positions, frequencies=frequencies, y=y, dy=dy, dx=x.grad)


def activations(goldens):
    gate, up = leaf(1003, scale=3), leaf(1003)
    y = torch.nn.functional.silu(gate) * up
    dy = backward(y)
    goldens.add("swiglu", gate=gate, up=up, y=y, dy=dy, dgate=gate.grad, dup=up.grad)
    x = leaf(517, scale=3)
    y = torch.nn.functional.gelu(x, approximate="tanh")
    dy = backward(y)
    goldens.add("gelu", x=x, y=y, dy=dy, dx=x.grad)


def embedding(goldens):
    table, ids = leaf(19, 85), torch.randint(0, 19, (41,))
    y = torch.nn.functional.embedding(ids, table)
    dy = backward(y)
    goldens.add("embedding", table=table, ids=ids, y=y, dy=dy, dtable=table.grad)


def linear(goldens):
    x, w = leaf(71, 51), leaf(37, 51)
    y = x @ w.T
    dy = backward(y)
    goldens.add("linear", x=x, w=w, y=y, dy=dy, dx=x.grad, dw=w.grad)
    x, w, a, b = leaf(90, 66), leaf(130, 66), leaf(5, 66), leaf(130, 5)
    t = x @ a.T
    y = x @ w.T + 0.75 * t @ b.T
    dy = backward(y)
    goldens.add("lora", x=x, w=w, a=a, b=b, t=t, y=y, dy=dy, dx=x.grad, da=a.grad, db=b.grad)


def attention(goldens, case, segments, heads, kv_heads, dim, window):
    """segments: (length, indices of the segments before it on its branch)."""
    starts = np.cumsum([0] + [length for length, _ in segments])
    rows = int(starts[-1])
    q, k, v = leaf(rows, heads, dim), leaf(rows, kv_heads, dim), leaf(rows, kv_heads, dim)
    seen = torch.zeros(rows, rows, dtype=torch.bool)
    for index, (length, ancestors) in enumerate(segments):
        keys = [r for a in ancestors for r in range(starts[a], starts[a + 1])]
        for i in range(length):
            keys.append(int(starts[index]) + i)
            seen[starts[index] + i, keys[-window:] if window else keys] = True
    scale = 0.37
    scores = torch.einsum("ihd,jhd->hij", q, k.repeat_interleave(heads // kv_heads, 1)) * scale
    scores = scores.masked_fill(~seen, -torch.inf)
    out = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v.repeat_interleave(heads // kv_heads, 1))
    dout = backward(out)
    lse = scores.logsumexp(-1).T
    goldens.add(case, q=q, k=k, v=v, out=out, lse=lse, dout=dout, dq=q.grad, dk=k.grad, dv=v.grad)


def cross_entropy(goldens):
    hidden, head = leaf(23, 34), leaf(701, 34)
    targets, weights = torch.randint(0, 701, (23,)), torch.rand(23).float().double()
    losses = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    loss = (losses * weights).sum()
    loss.backward()
    goldens.add("cross_entropy", hidden=hidden, head=head, targets=targets, weights=weights, losses=losses,
                loss=loss, dhidden=hidden.grad, dhead=head.grad)


def distillation(goldens):
    """TRL's generalised JSD, its ends the two KL divergences, plus the gold cross-entropy; and the same of a teacher of
    which only the likeliest tokens are known, the others one class."""
    vocab, rows, temperature, weight, beta, known = 701, 23, 1.7, 0.6, 0.3, 9
    hidden, head = leaf(rows, 34), leaf(vocab, 34)
    teacher_hidden, teacher_head = leaf(rows, 20), leaf(vocab, 20, scale=1.5)
    targets, weights = torch.randint(0, vocab, (rows,)), torch.rand(rows).float().double()
    logits, teacher_logits = hidden @ head.T, (teacher_hidden @ teacher_head.T).detach()
    gold = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    top = teacher_logits.log_softmax(-1).topk(known)
    saved = top.values.float().double()
    goldens.add("distillation", hidden=hidden, head=head, teacher_hidden=teacher_hidden, teacher_head=teacher_head,
                targets=targets, weights=weights, saved_tokens=top.indices, saved_log_probs=saved)

    def classes(log_q):
        q = log_q.exp()
        known_q = q.gather(-1, top.indices)
        rest_p = (1 - saved.exp().sum(-1, keepdim=True)).clamp_min(1e-6)
        others = torch.ones_like(q).scatter(-1, top.indices, 0.0)
        return (torch.cat([known_q, (q * others).sum(-1, keepdim=True)], -1).log(),
                torch.cat([saved, rest_p.log()], -1))

    for kind in ["forward_kl", "reverse_kl", "jsd", "saved_forward_kl", "saved_reverse_kl", "saved_jsd"]:
        if kind.startswith("saved"):
            log_q, log_p = classes(logits.log_softmax(-1))
        else:
            log_q, log_p = (logits / temperature).log_softmax(-1), (teacher_logits / temperature).log_softmax(-1)

        def kl(a, b):
            return (a.exp() * (a - b)).sum(-1)

        mixture = torch.logsumexp(torch.stack([log_q + np.log(1 - beta), log_p + np.log(beta)]), 0)
        divergence = {"forward_kl": lambda: kl(log_p, log_q), "reverse_kl": lambda: kl(log_q, log_p),
                      "jsd": lambda: beta * kl(log_p, mixture) + (1 - beta) * kl(log_q, mixture)}[
                          kind.removeprefix("saved_")]()
        hidden.grad = head.grad = None
        loss = ((weight * divergence + (1 - weight) * gold) * weights).sum()
        loss.backward(retain_graph=True)
        goldens.add(f"distillation_{kind}", loss=loss, dhidden=hidden.grad)
        if kind == "jsd":
            goldens.add(f"distillation_{kind}", dhead=head.grad)


def adamw(goldens):
    p = leaf(101)
    start = p.detach().clone()
    optimizer = torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    gradients = []
    for _ in range(3):
        p.grad = torch.randn(101).float().double()
        gradients.append(p.grad.clone())
        optimizer.step()
    goldens.add("adamw", start=start, gradients=torch.stack(gradients), p=p)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    torch.manual_seed(3)
    goldens = Goldens()
    norms(goldens)
    rope(goldens)
    activations(goldens)
    embedding(goldens)
    linear(goldens)
    attention(goldens, "attention_packed", [(7, []), (41, []), (1, []), (30, [])], 6, 2, 18, 0)
    attention(goldens, "attention_tree", [(40, []), (9, [0]), (70, [0]), (5, [0, 1]), (3, [0, 1])], 4, 2, 8, 0)
    attention(goldens, "attention_window", [(60, []), (11, [0])], 2, 2, 16, 13)
    cross_entropy(goldens)
    adamw(goldens)
    distillation(goldens)

    if not check:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        np.concatenate(list(goldens.arrays.values())).astype("<f4").tofile(GOLDEN / "kernels.f32")
        index = "".join(f"{name} {array.size}\n" for name, array in goldens.arrays.items())
        (GOLDEN / "kernels.index").write_text(index)
        return
    values, at, wrong = np.fromfile(GOLDEN / "kernels.f32", "<f4"), 0, 0
    for line in (GOLDEN / "kernels.index").read_text().splitlines():
        name, size = line.rsplit(" ", 1)
        committed, fresh = values[at : at + int(size)], goldens.arrays[name]
        at += int(size)
        difference = np.linalg.norm(committed - fresh) / max(np.linalg.norm(fresh), 1e-20)
        if difference > 1e-6:
            wrong += 1
            print(f"{name}: differs by {difference:.2e}")
    print(f"{len(goldens.arrays)} arrays compared, {wrong} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

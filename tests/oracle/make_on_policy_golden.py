#!/usr/bin/env python3
"""On-policy distillation against PyTorch: make_on_policy_golden.py STORIES

STORIES holds stories260K.bin and tok512.bin. The student is the model with an adapter of closed-form values, the
teacher the model alone. The student answers some prompts with its likeliest tokens, and the three divergences from the
teacher over these answers, with the norm of the adapter's gradient, are computed in double precision. Writes
tests/golden/train/on_policy.json, which tests/train/on_policy_test.cpp compares with.
"""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
RANK, SCALE, BETA = 4, 2.0, 0.3
MAX_NEW_TOKENS = 12
# A story's beginning (<s> and tokens of its tokenizer); one that ends soon.
PROMPTS = [[1, 403, 407, 261, 378], [1, 403, 407, 261, 378, 475], [1, 333, 286, 269], [1, 426, 317, 33, 295, 41]]


def closed_form(count, scale, phase):
    """What adapter_values in tests/train/on_policy_test.cpp makes too."""
    return torch.tensor([scale * math.sin(0.37 * i + phase) for i in range(count)], dtype=torch.float32)


class Adapted(torch.nn.Module):
    def __init__(self, linear, phase):
        super().__init__()
        self.linear = linear
        out, width = linear.weight.shape
        self.a = torch.nn.Parameter(closed_form(RANK * width, 0.2, phase).double().view(RANK, width))
        self.b = torch.nn.Parameter(closed_form(out * RANK, 0.1, phase + 1).double().view(out, RANK))

    def forward(self, x):
        return self.linear(x) + SCALE * (x @ self.a.T @ self.b.T)


def adapt(model):
    parameters = []
    for number, layer in enumerate(model.model.layers):
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if name not in ("q_proj", "v_proj", "down_proj"):
                    continue
                adapted = Adapted(linear, number + {"q_proj": 0.1, "v_proj": 0.2, "down_proj": 0.3}[name])
                setattr(part, name, adapted)
                parameters += [adapted.a, adapted.b]
    return parameters


def answer(model, prompt, end):
    """The likeliest tokens; the smallest lead over the second."""
    tokens, lead = list(prompt), math.inf
    for _ in range(MAX_NEW_TOKENS):
        with torch.no_grad():
            best = model(torch.tensor([tokens])).logits[0, -1].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
        if tokens[-1] == end:
            break
    return tokens, lead


def divergence(kind, teacher, student):
    """Of log-probabilities [tokens, vocab], summed over the vocabulary."""
    def kl(p, q):
        return (p.exp() * (p - q)).sum(-1)
    if kind == "forward_kl":
        return kl(teacher, student)
    if kind == "reverse_kl":
        return kl(student, teacher)
    mixture = torch.logaddexp(teacher + math.log(BETA), student + math.log(1 - BETA))
    return BETA * kl(teacher, mixture) + (1 - BETA) * kl(student, mixture)


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, HERE / "make_stories.py", sys.argv[1], folder + "/model"], check=True)
        teacher = LlamaForCausalLM.from_pretrained(folder + "/model", dtype=torch.float64).eval()
        student = LlamaForCausalLM.from_pretrained(folder + "/model", dtype=torch.float64).eval()
    for p in student.parameters():
        p.requires_grad_(False)
    parameters = adapt(student)
    rows, smallest = [], math.inf
    for prompt in PROMPTS:
        tokens, lead = answer(student, prompt, student.config.eos_token_id)
        rows.append({"prompt": prompt, "answer": tokens[len(prompt):]})
        smallest = min(smallest, lead)
    assert smallest > 1e-3, f"two tokens are as good as equally likely ({smallest}); choose other prompts"
    losses = {}
    for kind in ("forward_kl", "reverse_kl", "jsd"):
        total, count = 0.0, 0
        for row in rows:
            tokens = torch.tensor([row["prompt"] + row["answer"]])
            first = len(row["prompt"]) - 1
            with torch.no_grad():
                theirs = teacher(tokens).logits[0, first:-1].log_softmax(-1)
            ours = student(tokens).logits[0, first:-1].log_softmax(-1)
            total = total + divergence(kind, theirs, ours).sum()
            count += len(row["answer"])
        gradients = torch.autograd.grad(total / count, parameters)
        losses[kind] = {"loss": (total / count).item(),
                        "gradient_norm": sum((g ** 2).sum() for g in gradients).sqrt().item()}
        print(kind, losses[kind])
    for row in rows:
        print(row, flush=True)
    golden = {"rank": RANK, "scale": SCALE, "beta": BETA, "max_new_tokens": MAX_NEW_TOKENS, "rows": rows,
              "losses": losses}
    (HERE.parent / "golden" / "train" / "on_policy.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"smallest lead of a likeliest token: {smallest:.3g}")


if __name__ == "__main__":
    main()

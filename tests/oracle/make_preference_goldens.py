#!/usr/bin/env python3
"""Losses and gradients of preference tuning by PyTorch's autograd through transformers and PEFT, in double precision:
writes tests/golden/train/preference for tests/train/preference_test.cpp.

The model and the adapter are those of tests/golden/train/llama. The reference is the model without the adapter. The
losses are TRL's (DPOTrainer's sigmoid, with label smoothing and rpo_alpha, and ipo; ORPOTrainer; KTOTrainer), but
that ORPO's cross-entropy is of the answers alone.
"""

import json
import pathlib

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "train"
# One layer's worth of each kind of matrix is enough to see a wrong weight anywhere.
KEPT = ["model.layers.0.self_attn.q_proj.lora_A", "model.layers.0.mlp.down_proj.lora_B",
        "model.layers.1.self_attn.v_proj.lora_B"]
CASES = {
    "dpo": {"loss": "dpo", "beta": 0.3},
    "dpo_smoothed": {"loss": "dpo", "beta": 0.5, "label_smoothing": 0.2, "sft_weight": 0.7},
    "ipo": {"loss": "ipo", "beta": 0.4},
    "orpo": {"loss": "orpo", "lambda": 0.6},
    "kto": {"loss": "kto", "beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.8},
}


def make_rows():
    """Pairs: a prompt, a right answer and a wrong one. Two prompts begin alike, and one stands twice."""
    generator = torch.Generator().manual_seed(5)

    def some(n):
        return torch.randint(0, 300, (n,), generator=generator).tolist()

    system = some(9)
    prompts = [system + some(4), system + some(7), some(5)]
    prompts.append(prompts[1])
    rows = []
    for prompt, right, wrong in zip(prompts, [6, 3, 12, 5], [4, 8, 2, 5]):
        for n in (right, wrong):
            rows.append({"tokens": prompt + some(n), "trained": [0] * len(prompt) + [1] * n})
    return rows


def log_prob(model, row):
    logits = model(input_ids=torch.tensor([row["tokens"]])).logits[0, :-1]
    targets = torch.tensor(row["tokens"][1:])
    keep = torch.tensor(row["trained"][1:], dtype=torch.bool)
    return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0][keep]


def mismatched(rows):
    """Each prompt with the answer of the nearest row before it, around the beginning, that answers another prompt."""
    start = [row["trained"].index(1) for row in rows]
    prompts = [row["tokens"][:s] for row, s in zip(rows, start)]
    longest = max(len(row["tokens"]) for row in rows)
    out = []
    for i, prompt in enumerate(prompts):
        other = next(j % len(rows) for j in range(i + len(rows) - 1, i, -1) if prompts[j % len(rows)] != prompt)
        answer = rows[other]["tokens"][start[other]:][:longest - len(prompt)]
        out.append({"tokens": prompt + answer, "trained": [0] * len(prompt) + [1] * len(answer)})
    return out


def pair_losses(case, policy, reference):
    beta, loss = case.get("beta"), case["loss"]
    chosen, rejected = policy[::2], policy[1::2]
    ref_chosen, ref_rejected = reference[::2], reference[1::2]
    log_sigmoid = torch.nn.functional.logsigmoid
    losses, rewards = [], []
    for c, r, rc, rr in zip(chosen, rejected, ref_chosen, ref_rejected):
        if loss == "dpo":
            logits = (c.sum() - r.sum()) - (rc.sum() - rr.sum())
            smoothing = case.get("label_smoothing", 0)
            losses.append(-log_sigmoid(beta * logits) * (1 - smoothing) - log_sigmoid(-beta * logits) * smoothing)
            rewards.append((beta * (c.sum() - rc.sum()), beta * (r.sum() - rr.sum())))
        elif loss == "ipo":
            logits = (c.mean() - r.mean()) - (rc.mean() - rr.mean())
            losses.append((logits - 1 / (2 * beta)) ** 2)
            rewards.append((beta * (c.mean() - rc.mean()), beta * (r.mean() - rr.mean())))
        else:
            log_odds = (c.mean() - r.mean()) - (torch.log1p(-torch.exp(c.mean())) - torch.log1p(-torch.exp(r.mean())))
            losses.append(-case["lambda"] * log_sigmoid(log_odds))
            rewards.append((case["lambda"] * c.mean(), case["lambda"] * r.mean()))
    total = torch.stack(losses).mean()
    weight = 1 if loss == "orpo" else case.get("sft_weight", 0)
    total = total - weight * torch.cat(chosen).mean()
    accuracy = sum(float(c > r) for c, r in rewards) / len(rewards)
    margin = sum(float(c - r) for c, r in rewards) / len(rewards)
    return total, accuracy, margin


def kto_losses(case, policy, reference, drift):
    beta, losses, rewards, right = case["beta"], [], [[], []], 0
    for i, (p, r) in enumerate(zip(policy, reference)):
        ratio, wanted = p.sum() - r.sum(), i % 2 == 0
        gain = torch.sigmoid(beta * (ratio - drift)) if wanted else torch.sigmoid(beta * (drift - ratio))
        losses.append(case["desirable_weight" if wanted else "undesirable_weight"] * (1 - gain))
        rewards[0 if wanted else 1].append(float(beta * ratio))
        right += (float(ratio) > drift) == wanted
    mean = [sum(r) / len(r) for r in rewards]
    return torch.stack(losses).mean(), right / len(losses), mean[0] - mean[1]


def main():
    base = LlamaForCausalLM.from_pretrained(GOLDEN / "llama" / "model", dtype=torch.float32).double().eval()
    rows = make_rows()
    others = mismatched(rows)
    with torch.no_grad():
        reference = [log_prob(base, row) for row in rows]
        others_reference = [log_prob(base, row) for row in others]
    model = PeftModel.from_pretrained(base, GOLDEN / "llama" / "adapter", is_trainable=True,
                                      autocast_adapter_dtype=False).double().eval()
    out, gradients = {"rows": rows, "reference": [float(r.sum()) for r in reference], "cases": {}}, {}
    for name, case in CASES.items():
        model.zero_grad()
        policy = [log_prob(model, row) for row in rows]
        if case["loss"] == "kto":
            with torch.no_grad():
                drift = sum(float(log_prob(model, row).sum() - r.sum()) for row, r in zip(others, others_reference))
            drift = max(0.0, drift / len(others))
            loss, accuracy, margin = kto_losses(case, policy, reference, drift)
        else:
            loss, accuracy, margin = pair_losses(case, policy, reference)
        loss.backward()
        for parameter, p in model.named_parameters():
            key = parameter.removeprefix("base_model.model.").replace(".default.weight", "")
            if p.grad is not None and key in KEPT:
                gradients[f"{name}.{key}"] = p.grad.float().contiguous()
        out["cases"][name] = {**case, "expected_loss": float(loss.detach()), "accuracy": accuracy, "margin": margin}
        print(f"{name}: loss {float(loss):.6f}, accuracy {accuracy:.2f}, margin {margin:+.4f}"
              + (f", drift {drift:.4f}" if case["loss"] == "kto" else ""))
    folder = GOLDEN / "preference"
    folder.mkdir(exist_ok=True)
    (folder / "cases.json").write_text(json.dumps(out) + "\n")
    save_file(gradients, folder / "gradients.safetensors")


if __name__ == "__main__":
    main()

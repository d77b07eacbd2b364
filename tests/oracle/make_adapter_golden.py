"""Writes tests/golden/formats/peft: an adapter as peft saves it, for a llama of one layer."""

import sys
import tempfile
from pathlib import Path

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM


def main():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
                                         num_attention_heads=2, num_key_value_heads=2))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"],
                                                         task_type="CAUSAL_LM"))
    count = 0
    for name, parameter in sorted(wrapped.named_parameters()):
        if "lora_" in name:
            parameter.data = ((torch.arange(parameter.numel()) + count) * 0.25).reshape(parameter.shape)
            count += parameter.numel()
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "golden/formats/peft")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (target / name).write_bytes((Path(folder) / name).read_bytes())


main()

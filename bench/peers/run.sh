#!/usr/bin/env bash
# Thimble beside its peers in one sitting: llama.cpp for inference, perplexity and merged models, PyTorch + PEFT for
# training, tokenizers for tokenizing.
# Needs `tools/setup.sh oracle` (make peers does it). Arguments go to inference.py. Exit status 1 where a bar is missed.

#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "formats/adapter.h"
#include "formats/model_config.h"

namespace thimble {

// A LoRA adapter in one GGUF file as llama.cpp's convert_lora_to_gguf.py writes it and its --lora reads it: metadata
// general.type = "adapter", adapter.type = "lora", adapter.lora.alpha; tensors "<tensor>.lora_a" [rank, in] and
// ".lora_b" [out, rank], F32, rows of query and key projections in GGUF's order (llama_names.h). Of the base only its
// heads are needed. Thimble's manifest goes along as "thimble.job".

// rsLoRA's scale is written as the alpha that gives it. Throws Error for DoRA, for layers that GGUF has no name for,
// and where writing fails.
void write_gguf_lora(const std::filesystem::path& file, const LoraAdapter& adapter, const ModelConfig& base);

// Throws Error where the file is another kind of GGUF, has tensors that are no LoRA's or of different ranks, or is
// incomplete.
LoraAdapter read_gguf_lora(const std::filesystem::path& file, const ModelConfig& base);
// The same of a file's bytes; `place` names it in errors.
LoraAdapter parse_gguf_lora(std::span<const std::byte> bytes, const std::string& place, const ModelConfig& base);

}  // namespace thimble

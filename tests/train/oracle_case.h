#pragma once

// Cases that tests/oracle/train_oracle.py wrote: a model, an adapter, rows, and what PyTorch makes of them.

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "formats/safetensors.h"
#include "models/gpt2_family.h"
#include "models/model.h"
#include "test_data.h"
#include "train/lora.h"
#include "train/pack.h"

namespace thimble::test {

struct OracleCase {
  std::shared_ptr<const Model> model;
  std::unique_ptr<Lora> lora;
  std::vector<TrainRow> rows;
  std::map<std::string, Tensor> expected;
  double loss = 0;
  double bf16_difference = 0;  // largest of PyTorch's own gradients under bf16 autocast
  std::vector<double> losses;  // of AdamW steps over all rows, 50 of small models
  double learning_rate = 0, weight_decay = 0, clip = 0;

  // The same of the base model with all weights trained; no losses where the case has none.
  struct Full {
    std::map<std::string, Tensor> gradients;
    double loss = 0, bf16_difference = 0, learning_rate = 0;
    std::vector<double> losses;
  } full;

  TrainBatch batch() const {
    MicroBatch all;
    for (size_t i = 0; i < rows.size(); ++i) all.rows.push_back(static_cast<int>(i));
    return make_batch(rows, all);
  }
};

inline std::vector<float> floats(const Tensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.elements()));
  EXPECT_EQ(tensor.type, DType::kF32);
  std::memcpy(out.data(), tensor.data, tensor.bytes());
  return out;
}

// norm(actual - expected) / norm(expected)
inline double relative_difference(std::span<const float> actual, std::span<const float> expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    difference += (static_cast<double>(actual[i]) - expected[i]) * (static_cast<double>(actual[i]) - expected[i]);
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-30);
}

inline OracleCase load_case(const std::filesystem::path& folder) {
  register_family("gpt2", build_gpt2);
  OracleCase out;
  out.model = load_model(folder / "model");
  const LoraAdapter adapter = read_adapter(folder / "adapter");
  out.lora = std::make_unique<Lora>(*out.model, lora_config(adapter), 1);
  from_adapter(adapter, *out.lora);
  const auto batch = nlohmann::json::parse(read_file(folder / "batch.json"));
  for (const auto& row : batch.at("rows"))
    out.rows.push_back({row.at("tokens"), row.at("trained"), static_cast<int>(out.rows.size() + 1), {}});
  out.loss = batch.at("loss");
  out.bf16_difference = batch.at("bf16_difference");
  out.losses = batch.at("losses").get<std::vector<double>>();
  out.learning_rate = batch.at("learning_rate");
  out.weight_decay = batch.at("weight_decay");
  out.clip = batch.at("clip");
  out.expected = read_safetensors(folder / "expected.safetensors");
  if (!std::filesystem::exists(folder / "full.json")) return out;
  const auto full = nlohmann::json::parse(read_file(folder / "full.json"));
  out.full.loss = full.at("loss");
  out.full.bf16_difference = full.at("bf16_difference");
  out.full.losses = full.at("losses").get<std::vector<double>>();
  out.full.learning_rate = full.at("learning_rate");
  out.full.gradients = read_safetensors(folder / "full.safetensors");
  return out;
}

// The committed cases, or those of a live run (THIMBLE_TRAIN_CASES).
inline std::vector<std::string> case_folders() {
  const char* live = std::getenv("THIMBLE_TRAIN_CASES");
  std::vector<std::string> out;
  for (const auto& entry :
       std::filesystem::directory_iterator(live != nullptr ? std::filesystem::path(live) : golden("train")))
    if (std::filesystem::exists(entry.path() / "batch.json")) out.push_back(entry.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace thimble::test

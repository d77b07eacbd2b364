#include "formats/adapter_mix.h"

#include <fmt/core.h>

#include <cmath>

#include "core/error.h"

namespace thimble {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error("mixing adapters: " + what); }

// The mixed adapter's modules with their shapes, zeros of the given rank.
LoraAdapter shapes_of(std::span<const LoraAdapter> adapters, std::span<const double> weights, int rank) {
  if (adapters.empty()) refuse("there are none; name at least one");
  if (adapters.size() != weights.size())
    refuse(fmt::format("{} adapters and {} weights; give each its weight", adapters.size(), weights.size()));
  LoraAdapter out;
  out.rank = rank;
  out.alpha = static_cast<float>(rank);  // what scales them is in the matrices
  out.base_name = adapters.front().base_name;
  for (size_t i = 0; i < adapters.size(); ++i) {
    if (!std::isfinite(weights[i])) refuse("a weight is not a finite number; correct it");
    if (adapters[i].dora) refuse("one of them is DoRA, whose magnitudes belong to its own sum; merge it into the base");
    for (const auto& [name, module] : adapters[i].modules) {
      LoraModule& placed = out.modules[name];
      if (placed.in != 0 && (placed.in != module.in || placed.out != module.out))
        refuse(fmt::format("layer '{}' is {} x {} in one and {} x {} in another; they are of different base models",
                           name, placed.out, placed.in, module.out, module.in));
      placed.in = module.in;
      placed.out = module.out;
      placed.a.resize(static_cast<size_t>(rank * module.in));
      placed.b.resize(static_cast<size_t>(module.out * rank));
    }
  }
  return out;
}

}  // namespace

LoraAdapter concatenate_adapters(std::span<const LoraAdapter> adapters, std::span<const double> weights) {
  int rank = 0;
  for (const LoraAdapter& adapter : adapters) rank += adapter.rank;
  LoraAdapter out = shapes_of(adapters, weights, rank);
  int64_t first = 0;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const int64_t r = adapters[i].rank;
    const auto factor = static_cast<float>(weights[i] * adapters[i].scale());
    for (const auto& [name, module] : adapters[i].modules) {
      LoraModule& placed = out.modules[name];
      for (int64_t j = 0; j < r * module.in; ++j)
        placed.a[static_cast<size_t>(first * module.in + j)] = factor * module.a[static_cast<size_t>(j)];
      for (int64_t row = 0; row < module.out; ++row)
        for (int64_t j = 0; j < r; ++j)
          placed.b[static_cast<size_t>(row * rank + first + j)] = module.b[static_cast<size_t>(row * r + j)];
    }
    first += r;
  }
  return out;
}

LoraAdapter add_adapters(std::span<const LoraAdapter> adapters, std::span<const double> weights) {
  const int rank = adapters.empty() ? 0 : adapters.front().rank;
  for (const LoraAdapter& adapter : adapters)
    if (adapter.rank != rank)
      refuse(fmt::format("ranks {} and {} can't be added; concatenate them instead", rank, adapter.rank));
  for (const double weight : weights)
    if (weight < 0) refuse(fmt::format("weight {} is negative, which adding can't do; concatenate instead", weight));
  LoraAdapter out = shapes_of(adapters, weights, rank);
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto factor = static_cast<float>(std::sqrt(weights[i] * adapters[i].scale()));
    for (const auto& [name, module] : adapters[i].modules) {
      LoraModule& placed = out.modules[name];
      for (size_t j = 0; j < module.a.size(); ++j) placed.a[j] += factor * module.a[j];
      for (size_t j = 0; j < module.b.size(); ++j) placed.b[j] += factor * module.b[j];
    }
  }
  return out;
}

}  // namespace thimble

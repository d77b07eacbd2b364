#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model_file.h"
#include "models/ops.h"

namespace thimble {

// A loaded model: its stored weights and its computation, described once over Ops.
struct Model {
  ModelConfig config;
  Vocabulary vocabulary;
  std::string fingerprint;
  std::string manifest;  // ModelFile::manifest
  std::deque<Linear> linears;  // deques: layers keep pointers into them
  std::deque<Param> params;
  const Linear* head = nullptr;  // hidden -> vocabulary logits; may share the embedding's tensor
  // The batch's hidden states after the last norm, [rows, hidden]; logits are head's, computed where needed.
  std::function<Act(Ops&)> forward;

  // For families: take a tensor out of the file, checked against the expected shape. Throws Error naming the
  // tensor where it is missing or has another shape.
  const Linear& add_linear(const ModelFile& file, const std::string& module, int64_t out, int64_t in, bool bias);
  const Param& add_param(const ModelFile& file, const std::string& name, std::vector<int64_t> shape);
};

// A family describes how to build a Model from files of its config.family.
using FamilyBuilder = std::function<void(const ModelFile& file, Model& model)>;
void register_family(const std::string& name, FamilyBuilder builder);  // for tests and plug-ins; replaces
std::vector<std::string> family_names();

// Throws Error for an unknown family (naming the known ones), a missing tensor, a wrong shape.
std::shared_ptr<Model> build_model(ModelFile file);
std::shared_ptr<Model> load_model(const std::filesystem::path& path);  // open_model + build_model

}  // namespace thimble

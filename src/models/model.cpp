#include "models/model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "core/error.h"
#include "models/families.h"

namespace thimble {
namespace {

std::map<std::string, FamilyBuilder>& registry() {
  static std::map<std::string, FamilyBuilder> families = {
      {"llama", build_llama},
  };
  return families;
}

const Tensor& find(const ModelFile& file, const std::string& name, const std::vector<int64_t>& shape) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    throw Error(fmt::format("{}: tensor '{}' is missing; the file is incomplete or of another model family",
                            file.path.string(), name));
  if (found->second.shape != shape)
    throw Error(fmt::format("{}: tensor '{}' has shape [{}] where the config asks for [{}]", file.path.string(), name,
                            fmt::join(found->second.shape, ", "), fmt::join(shape, ", ")));
  return found->second;
}

}  // namespace

const Linear& Model::add_linear(const ModelFile& file, const std::string& module, int64_t out, int64_t in, bool bias) {
  Linear layer;
  layer.name = module;
  layer.weight = find(file, module + ".weight", {out, in});
  if (bias) layer.bias = find(file, module + ".bias", {out});
  layer.index = static_cast<int>(linears.size());
  return linears.emplace_back(std::move(layer));
}

const Param& Model::add_param(const ModelFile& file, const std::string& name, std::vector<int64_t> shape) {
  return params.emplace_back(Param{name, find(file, name, shape), static_cast<int>(params.size())});
}

void register_family(const std::string& name, FamilyBuilder builder) { registry()[name] = std::move(builder); }

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const auto& [name, builder] : registry()) names.push_back(name);
  return names;
}

std::shared_ptr<Model> build_model(ModelFile file) {
  const auto family = registry().find(file.config.family);
  if (family == registry().end())
    throw Error(fmt::format("{}: model family '{}' is not supported; known families: {}", file.path.string(),
                            file.config.family, fmt::join(family_names(), ", ")));
  auto model = std::make_shared<Model>();
  model->config = file.config;
  model->fingerprint = file.fingerprint;
  model->manifest = file.manifest;
  family->second(file, *model);
  model->vocabulary = std::move(file.vocabulary);
  return model;
}

std::shared_ptr<Model> load_model(const std::filesystem::path& path) { return build_model(open_model(path)); }

}  // namespace thimble

#include <fmt/core.h>

#include <map>

#include "calls/json.h"
#include "cli/commands.h"
#include "cli/machine_info.h"
#include "cli/terminal.h"
#include "core/error.h"
#include "formats/model_file.h"
#include "formats/pull.h"
#include "models/model.h"

namespace thimble {

int info_command(const InfoOptions& options) {
  if (options.cpu) return machine_info(options.json);
  if (options.model.empty()) throw Error("info: give a model file, folder or pulled name, or --cpu");
  const ModelFile file = open_model(resolve_model(options.model));
  const ModelConfig& c = file.config;
  std::map<std::string, std::pair<int, double>> types;  // name -> tensors, bytes
  double parameters = 0, bytes = 0;
  for (const auto& [name, tensor] : file.tensors) {
    auto& [count, size] = types[std::string(dtype_info(tensor.type).name)];
    ++count;
    size += static_cast<double>(tensor.bytes());
    bytes += static_cast<double>(tensor.bytes());
    parameters += static_cast<double>(tensor.elements());
  }
  if (options.json) {
    Json out{{"path", file.path.string()},
             {"format", file.format},
             {"family", c.family},
             {"parameters", parameters},
             {"bytes", bytes},
             {"layers", c.layers},
             {"hidden", c.hidden},
             {"heads", c.heads},
             {"kv_heads", c.kv_heads},
             {"head_dim", c.head_dim},
             {"ffn", c.ffn},
             {"vocab", c.vocab},
             {"context", c.context},
             {"tied_embeddings", c.tied_embeddings},
             {"fingerprint", file.fingerprint},
             {"chat_template", !file.vocabulary.chat_template.empty()}};
    for (const auto& [name, entry] : types) out["types"][name] = {{"tensors", entry.first}, {"bytes", entry.second}};
    for (const auto& [name, tensor] : file.tensors)
      out["tensors"].push_back({{"name", name}, {"type", dtype_info(tensor.type).name}, {"shape", tensor.shape}});
    fmt::print("{}\n", out.dump());
    return kOk;
  }
  const auto line = [](const char* key, const std::string& value) {
    fmt::print("{} {}\n", styled(stdout, Style::kBold, fmt::format("{:<12}", key)), value);
  };
  line("file", fmt::format("{} ({})", file.path.string(), file.format));
  line("family", c.family);
  line("size", fmt::format("{:.1f} M parameters in {}", parameters / 1e6, human_bytes(bytes)));
  line("shape", fmt::format("{} layers, hidden {}, feed-forward {}", c.layers, c.hidden, c.ffn));
  line("attention", fmt::format("{} heads of {}, {} key-value heads", c.heads, c.head_dim, c.kv_heads));
  line("context", fmt::format("{} tokens; {} a token in the key-value cache", human_count(c.context),
                              human_bytes(2.0 * c.layers * c.kv_heads * c.head_dim * 2)));
  line("vocabulary",
       fmt::format("{} tokens{}", human_count(c.vocab), c.tied_embeddings ? "; the head is the embedding table" : ""));
  for (const auto& [name, entry] : types)
    line("tensors", fmt::format("{} in {}, {}", entry.first, name, human_bytes(entry.second)));
  line("chat",
       file.vocabulary.chat_template.empty() ? "no template in the file (ChatML is used)" : "template in the file");
  line("fingerprint", file.fingerprint);
  return kOk;
}

}  // namespace thimble

#include <fmt/core.h>

#include "cli/commands.h"
#include "cli/session.h"
#include "cli/text_scores.h"

namespace thimble {

int perplexity_command(const PerplexityOptions& options) {
  const std::string text = read_text(options.text);
  const ChunkOptions chunks{.context = options.model.context, .chunks = options.chunks};
  const Session session = open_session(options.model);
  if (options.reference.empty()) {
    const Perplexity score = perplexity_with_progress(session, text, chunks);
    if (options.json) {
      Json out = text_json(score, options.text);
      out["perplexity"] = estimate_json(score.perplexity);
      fmt::print("{}\n", out.dump());
      return kOk;
    }
    print_text(score, options.text);
    print_perplexity("perplexity", score);
    return kOk;
  }
  ModelOptions original = options.model;
  original.model = options.reference;
  original.adapter.clear();
  if (!options.reference_precision.empty()) original.precision = options.reference_precision;
  const Session reference = open_session(original);
  const Divergence found = divergence_with_progress(session, reference, text, chunks);
  if (options.json) {
    Json out = text_json(found.model, options.text);
    out["perplexity"] = estimate_json(found.model.perplexity);
    out["reference_perplexity"] = estimate_json(found.reference.perplexity);
    add_divergence(out, found);
    fmt::print("{}\n", out.dump());
    return kOk;
  }
  print_text(found.model, options.text);
  print_perplexity("perplexity", found.model);
  print_perplexity("reference", found.reference);
  print_divergence(found);
  return kOk;
}

}  // namespace thimble

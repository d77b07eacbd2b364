#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/progress.h"
#include "infer/engine.h"

namespace thimble {

// Perplexity of a text as llama.cpp's llama-perplexity computes it, so that figures can be compared: the text is
// tokenised whole (control tokens in it are text, a newline at its end is dropped) and cut into chunks of `context`
// tokens, what fills no chunk is left out; where the model begins texts with BOS, that takes the place of each chunk's
// first token; of each chunk the second half is scored, so that every scored token has at least half a context.

struct ChunkOptions {
  int64_t context = 512;
  int64_t chunks = 0;  // the first so many; 0: all
};

struct TextChunks {
  std::vector<int32_t> tokens;  // whole chunks, one after the other
  int64_t context = 0;
  int64_t text_tokens = 0;  // of the whole text
  int64_t text_chunks = 0;  // that the whole text has

  int64_t count() const { return static_cast<int64_t>(tokens.size()) / context; }
  // Positions first_scored() .. context - 2 of a chunk are scored, each by the token after it.
  int64_t first_scored() const { return context / 2; }
  int64_t scored_in_chunk() const { return context - 1 - first_scored(); }
  std::span<const int32_t> chunk(int64_t index) const {
    return std::span(tokens).subspan(static_cast<size_t>(index * context), static_cast<size_t>(context));
  }
};
// Throws Error where the text is shorter than two chunks, or a chunk longer than `longest`, the model's context.
TextChunks chunk_text(const Tokenizer& tokenizer, int64_t longest, std::string_view text, const ChunkOptions& options);

// What one position's logits say of the token that follows.
struct TokenScore {
  double nll = 0;  // -log p(token)
  int32_t top = 0;
};
TokenScore score_token(std::span<const float> logits, int32_t token);

// The same of two models, and sum over tokens of q log(q / p), q being the reference's probabilities.
struct TokenComparison {
  TokenScore model, reference;
  double kl = 0;
};
TokenComparison compare_token(std::span<const float> logits, std::span<const float> reference, int32_t token);

struct Estimate {
  double value = 0;
  double error = 0;  // standard error
};
Estimate mean(std::span<const double> values);         // error: sqrt(variance / (n - 1))
Estimate exp_of_mean(std::span<const double> values);  // the error carried over: exp(mean) * error of the mean

struct Perplexity {
  int64_t text_tokens = 0, context = 0, chunks = 0, text_chunks = 0;
  int64_t scored = 0;  // tokens
  Estimate perplexity;
  double seconds = 0;
};
// Progress is in tokens; its detail is the perplexity so far. Throws Error where chunk_text does, and where the model's
// logits are not finite.
Perplexity measure_perplexity(Engine& engine, int adapter, std::string_view text, const ChunkOptions& options,
                              const ProgressFn& progress = {});

struct Divergence {
  Perplexity model, reference;
  Estimate kl;        // mean of KL(reference || model), in nats a token
  Estimate same_top;  // share of positions where both find the same token likeliest
  Estimate ratio;     // of the perplexities, model's over reference's; its error knows that both read the same text
};
// Throws Error too where the models' vocabularies differ.
Divergence measure_divergence(Engine& engine, int adapter, Engine& reference, std::string_view text,
                              const ChunkOptions& options, const ProgressFn& progress = {});

}  // namespace thimble

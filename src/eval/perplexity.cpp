#include "eval/perplexity.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>

#include "core/buffer.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/thread_pool.h"

namespace thimble {
namespace {

struct Softmax {
  float best = 0;
  int32_t top = 0;
  double log_sum = 0;  // log(sum(exp(logit - best)))

  explicit Softmax(std::span<const float> logits) {
    const auto at = std::max_element(logits.begin(), logits.end());
    best = *at;
    top = static_cast<int32_t>(at - logits.begin());
    double sum = 0;
    for (const float logit : logits) sum += static_cast<double>(std::exp(logit - best));
    log_sum = std::log(sum);
  }
  double log_probability(float logit) const { return static_cast<double>(logit - best) - log_sum; }
};

bool adds_bos(const Tokenizer& tokenizer) {
  const auto ends = tokenizer.encode("", {.add_special = true});
  return tokenizer.bos() && !ends.empty() && ends.front() == *tokenizer.bos();
}

// The logits of a chunk's scored positions, slice by slice: `sink(first, rows, logits)`, `first` counted from the first
// scored position.
void scored_logits(Engine& engine, int adapter, const TextChunks& text, int64_t index,
                   const std::function<void(int64_t first, int64_t rows, const float* logits)>& sink) {
  const int64_t begin = text.first_scored(), end = begin + text.scored_in_chunk();
  const auto scored = [&](int64_t first, int64_t rows, const float* logits) {
    if (const int64_t to = std::min(first + rows, end); first < to) sink(first - begin, to - first, logits);
  };
  engine.logits(text.chunk(index), adapter, scored, begin);
}

// Calls score(row, logits, token) for scored positions, on all threads; it returns whether what it saw was finite.
template <class Score>
void score_rows(const TextChunks& text, int64_t index, int64_t first, int64_t rows, const float* logits, int64_t vocab,
                const Score& score) {
  const auto tokens = text.chunk(index);
  std::atomic<bool> finite = true;
  threads().parallel_for(rows, [&](int64_t i, int) {
    const std::span row(logits + i * vocab, static_cast<size_t>(vocab));
    if (!score(first + i, row, tokens[static_cast<size_t>(text.first_scored() + first + i + 1)])) finite = false;
  });
  if (!finite)
    throw Error(fmt::format("the model's logits are not finite in chunk {}; its weights are damaged", index + 1));
}

Perplexity summary(const TextChunks& text, std::span<const double> nll, Clock::time_point start) {
  return {.text_tokens = text.text_tokens,
          .context = text.context,
          .chunks = text.count(),
          .text_chunks = text.text_chunks,
          .scored = static_cast<int64_t>(nll.size()),
          .perplexity = exp_of_mean(nll),
          .seconds = seconds_since(start)};
}

void tell(const ProgressFn& progress, const char* stage, const TextChunks& text, int64_t chunks,
          const std::string& detail) {
  if (!progress) return;
  progress({.stage = stage,
            .done = static_cast<double>(chunks * text.context),
            .total = static_cast<double>(text.tokens.size()),
            .unit = "tokens",
            .detail = detail});
}

void check_same_vocabulary(const Engine& engine, const TextChunks& ours, const Engine& reference,
                           const TextChunks& theirs) {
  const int a = engine.model().model().config.vocab, b = reference.model().model().config.vocab;
  if (a != b)
    throw Error(fmt::format("the model has a vocabulary of {} tokens, the reference one of {}; only models with the "
                            "same tokens can be compared", a, b));
  const auto [x, y] = std::mismatch(ours.tokens.begin(), ours.tokens.end(), theirs.tokens.begin(), theirs.tokens.end());
  if (x == ours.tokens.end() && y == theirs.tokens.end()) return;
  throw Error(fmt::format("the model and the reference cut the text into tokens differently (from token {} on); only "
                          "models with the same tokenizer can be compared", x - ours.tokens.begin()));
}

}  // namespace

TextChunks chunk_text(const Tokenizer& tokenizer, int64_t longest, std::string_view text,
                      const ChunkOptions& options) {
  if (options.context < 4 || options.context > longest)
    throw Error(fmt::format("chunks of {} tokens don't fit: the model's context is {}, and the least is 4; give another "
                            "--context", options.context, longest));
  if (text.ends_with('\n')) text.remove_suffix(1);
  const bool bos = adds_bos(tokenizer);
  TextChunks out;
  out.context = options.context;
  if (bos) out.tokens.push_back(*tokenizer.bos());
  const auto tokens = tokenizer.encode(text);
  out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
  out.text_tokens = static_cast<int64_t>(out.tokens.size());
  out.text_chunks = out.text_tokens / options.context;
  if (out.text_chunks < 2)
    throw Error(fmt::format("the text has {} tokens, but two chunks of {} need {}; take a longer text or a smaller "
                            "--context", out.text_tokens, options.context, 2 * options.context));
  const int64_t chunks = options.chunks > 0 ? std::min(options.chunks, out.text_chunks) : out.text_chunks;
  out.tokens.resize(static_cast<size_t>(chunks * options.context));
  if (bos)
    for (int64_t i = 0; i < chunks; ++i) out.tokens[static_cast<size_t>(i * options.context)] = *tokenizer.bos();
  return out;
}

TokenScore score_token(std::span<const float> logits, int32_t token) {
  const Softmax p(logits);
  return {-p.log_probability(logits[static_cast<size_t>(token)]), p.top};
}

TokenComparison compare_token(std::span<const float> logits, std::span<const float> reference, int32_t token) {
  const Softmax p(logits), q(reference);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double log_q = q.log_probability(reference[i]);
    if (log_q < -50) continue;  // below 1e-21
    sum += static_cast<double>(std::exp(static_cast<float>(log_q))) * (log_q - p.log_probability(logits[i]));
  }
  const auto t = static_cast<size_t>(token);
  return {{-p.log_probability(logits[t]), p.top}, {-q.log_probability(reference[t]), q.top}, sum};
}

Estimate mean(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  const double mean = sum / n;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return {mean, n > 1 ? std::sqrt(squares / n / (n - 1)) : 0};
}

Estimate exp_of_mean(std::span<const double> values) {
  const Estimate log = mean(values);
  return {std::exp(log.value), std::exp(log.value) * log.error};
}

Perplexity measure_perplexity(Engine& engine, int adapter, std::string_view text, const ChunkOptions& options,
                              const ProgressFn& progress) {
  const TextChunks chunks = chunk_text(engine.tokenizer(), engine.context(), text, options);
  const auto start = Clock::now();
  const int64_t vocab = engine.model().model().config.vocab, scored = chunks.scored_in_chunk();
  std::vector<double> nll(static_cast<size_t>(chunks.count() * scored));
  double sum = 0;
  tell(progress, "perplexity", chunks, 0, "");
  for (int64_t i = 0; i < chunks.count(); ++i) {
    double* out = nll.data() + i * scored;
    scored_logits(engine, adapter, chunks, i, [&](int64_t first, int64_t rows, const float* logits) {
      score_rows(chunks, i, first, rows, logits, vocab, [&](int64_t row, std::span<const float> values, int32_t token) {
        out[row] = score_token(values, token).nll;
        return std::isfinite(out[row]);
      });
    });
    for (int64_t k = 0; k < scored; ++k) sum += out[k];
    tell(progress, "perplexity", chunks, i + 1,
         fmt::format("perplexity {:.3f}", std::exp(sum / static_cast<double>((i + 1) * scored))));
  }
  return summary(chunks, nll, start);
}

Divergence measure_divergence(Engine& engine, int adapter, Engine& reference, std::string_view text,
                              const ChunkOptions& options, const ProgressFn& progress) {
  const TextChunks chunks = chunk_text(engine.tokenizer(), engine.context(), text, options);
  check_same_vocabulary(engine, chunks, reference,
                        chunk_text(reference.tokenizer(), reference.context(), text, options));
  const auto start = Clock::now();
  const int64_t vocab = engine.model().model().config.vocab, scored = chunks.scored_in_chunk();
  const size_t held = static_cast<size_t>(scored * vocab) * sizeof(float);
  if (const size_t available = available_memory(); held > available)
    throw Error(fmt::format("the reference's logits of a chunk take {:.1f} GB, but {:.1f} GB of memory are available; "
                            "give a smaller --context", static_cast<double>(held) * 1e-9,
                            static_cast<double>(available) * 1e-9));
  Buffer<float> expected(static_cast<size_t>(scored * vocab));
  const auto total = static_cast<size_t>(chunks.count() * scored);
  std::vector<double> nll(total), reference_nll(total), kl(total), same(total), gain(total);
  double sum = 0;
  tell(progress, "comparing", chunks, 0, "");
  for (int64_t i = 0; i < chunks.count(); ++i) {
    scored_logits(reference, 0, chunks, i, [&](int64_t first, int64_t rows, const float* logits) {
      std::copy(logits, logits + rows * vocab, expected.data() + first * vocab);
    });
    scored_logits(engine, adapter, chunks, i, [&](int64_t first, int64_t rows, const float* logits) {
      score_rows(chunks, i, first, rows, logits, vocab, [&](int64_t row, std::span<const float> values, int32_t token) {
        const std::span theirs(expected.data() + row * vocab, static_cast<size_t>(vocab));
        const TokenComparison c = compare_token(values, theirs, token);
        const auto at = static_cast<size_t>(i * scored + row);
        nll[at] = c.model.nll;
        reference_nll[at] = c.reference.nll;
        gain[at] = c.model.nll - c.reference.nll;
        kl[at] = c.kl;
        same[at] = c.model.top == c.reference.top ? 1 : 0;
        return std::isfinite(nll[at]) && std::isfinite(reference_nll[at]) && std::isfinite(kl[at]);
      });
    });
    for (int64_t k = 0; k < scored; ++k) sum += kl[static_cast<size_t>(i * scored + k)];
    tell(progress, "comparing", chunks, i + 1,
         fmt::format("KL {:.5f}", sum / static_cast<double>((i + 1) * scored)));
  }
  return {.model = summary(chunks, nll, start),
          .reference = summary(chunks, reference_nll, start),
          .kl = mean(kl),
          .same_top = mean(same),
          .ratio = exp_of_mean(gain)};
}

}  // namespace thimble

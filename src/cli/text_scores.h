#pragma once

#include <filesystem>
#include <string>

#include "calls/json.h"
#include "cli/session.h"
#include "eval/perplexity.h"

namespace thimble {

// The figures of `perplexity` and of `quantize --check`, as both show them.

// The text that perplexity is measured on. Throws Error where it is missing or empty.
std::string read_text(const std::filesystem::path& file);

// Progress on standard error, with rate and time left.
Perplexity perplexity_with_progress(const Session& session, const std::string& text, const ChunkOptions& options);
Divergence divergence_with_progress(const Session& session, const Session& reference, const std::string& text,
                                    const ChunkOptions& options);

void print_text(const Perplexity& score, const std::filesystem::path& file);  // what was read
void print_perplexity(const char* name, const Perplexity& score);
void print_divergence(const Divergence& divergence);

Json text_json(const Perplexity& score, const std::filesystem::path& file);
Json estimate_json(const Estimate& estimate);
void add_divergence(Json& out, const Divergence& divergence);  // kl, same_top, ratio

}  // namespace thimble

// One thread's MB/s of encoding and decoding, and how long a tokenizer takes to build.
//   bench_tokenizer MODEL TEXT... [--whole] [--json]
// MODEL: a GGUF file, a folder, or a tokenizer.json. TEXT: a file, or a folder whose .cpp and .h files are put
// together. Texts are encoded line by line; --whole encodes each as one.
#include "text/tokenizer.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "core/atomic_file.h"
#include "core/clock.h"
#include "core/error.h"
#include "formats/model_file.h"
#include "infer/benchmark.h"

namespace thimble {
namespace {

namespace fs = std::filesystem;
constexpr int kRounds = 7;

double seconds_of(const std::function<void()>& work) {
  const Clock::time_point start = Clock::now();
  work();
  return seconds_since(start);
}

std::string read_text(const fs::path& path) {
  if (!fs::is_directory(path)) return read_file(path);
  std::vector<fs::path> sources;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.path().extension() == ".cpp" || entry.path().extension() == ".h") sources.push_back(entry.path());
  std::sort(sources.begin(), sources.end());
  std::string text;
  for (const fs::path& source : sources) text += read_file(source);
  return text;
}

Vocabulary read_vocabulary(const fs::path& model) {
  if (model.extension() != ".json") return open_vocabulary(model);
  Vocabulary vocabulary;
  vocabulary.tokenizer_json = read_file(model);
  return vocabulary;
}

// The views that are encoded one by one.
std::vector<std::string_view> parts_of(std::string_view text, bool whole) {
  if (whole) return {text};
  std::vector<std::string_view> lines;
  for (size_t at = 0, end = 0; at < text.size(); at = end) {
    end = std::min(text.find('\n', at), text.size() - 1) + 1;
    lines.push_back(text.substr(at, end - at));
  }
  return lines;
}

nlohmann::json measure(const Vocabulary& vocabulary, const std::string& name, const std::string& text, bool whole) {
  const std::vector<std::string_view> parts = parts_of(text, whole);
  std::vector<double> first, later, back;
  std::string decoded;
  size_t tokens = 0;
  // A new tokenizer on a new thread knows no word yet.
  for (int round = 0; round < kRounds; ++round) {
    const Tokenizer tokenizer = Tokenizer::from(vocabulary);
    std::jthread([&] {
      std::vector<std::vector<int32_t>> ids(parts.size());
      const auto encode = [&] {
        for (size_t i = 0; i < parts.size(); ++i) ids[i] = tokenizer.encode(parts[i]);
      };
      first.push_back(seconds_of(encode));
      later.push_back(seconds_of(encode));
      decoded.clear();
      back.push_back(seconds_of([&] {
        for (const std::vector<int32_t>& part : ids) decoded += tokenizer.decode(part);
      }));
      tokens = 0;
      for (const std::vector<int32_t>& part : ids) tokens += part.size();
    }).join();
    if (decoded != text) throw Error(fmt::format("{} decodes to another text", name));
  }
  const double megabytes = static_cast<double>(text.size()) / 1e6;
  return {{"text", name},
          {"bytes", text.size()},
          {"tokens", tokens},
          {"encode_first_mb_per_s", megabytes / median(first)},
          {"encode_mb_per_s", megabytes / median(later)},
          {"decode_mb_per_s", megabytes / median(back)}};
}

int run(const std::vector<std::string>& arguments) {
  std::vector<std::string> paths;
  bool whole = false, as_json = false;
  for (const std::string& argument : arguments) {
    if (argument == "--whole") {
      whole = true;
    } else if (argument == "--json") {
      as_json = true;
    } else {
      paths.push_back(argument);
    }
  }
  if (paths.size() < 2) {
    std::cerr << "usage: bench_tokenizer MODEL TEXT... [--whole] [--json]\n";
    return 2;
  }
  std::vector<double> reading, building;
  Vocabulary vocabulary;
  for (int round = 0; round < kRounds; ++round) {
    reading.push_back(seconds_of([&] { vocabulary = read_vocabulary(paths[0]); }));
    building.push_back(seconds_of([&] { Tokenizer::from(vocabulary); }));
  }
  nlohmann::json results = {{"first_read_ms", reading[0] * 1e3},
                            {"read_ms", median(reading) * 1e3},
                            {"first_build_ms", building[0] * 1e3},
                            {"build_ms", median(building) * 1e3},
                            {"texts", nlohmann::json::array()}};
  for (size_t i = 1; i < paths.size(); ++i)
    results["texts"].push_back(measure(vocabulary, fs::path(paths[i]).filename().string(), read_text(paths[i]), whole));
  if (as_json) {
    std::cout << results.dump() << "\n";
    return 0;
  }
  fmt::print("reading the vocabulary {:.1f} ms (first {:.1f}), building the tokenizer {:.1f} ms (first {:.1f})\n",
             results["read_ms"].get<double>(), results["first_read_ms"].get<double>(),
             results["build_ms"].get<double>(), results["first_build_ms"].get<double>());
  for (const nlohmann::json& text : results["texts"])
    fmt::print("{}: {} bytes, {} tokens: encode {:.1f} MB/s (first time {:.1f}), decode {:.1f} MB/s\n",
               text["text"].get<std::string>(), text["bytes"].get<size_t>(), text["tokens"].get<size_t>(),
               text["encode_mb_per_s"].get<double>(), text["encode_first_mb_per_s"].get<double>(),
               text["decode_mb_per_s"].get<double>());
  return 0;
}

}  // namespace
}  // namespace thimble

int main(int argc, char** argv) try {
  return thimble::run({argv + 1, argv + argc});
} catch (const std::exception& error) {
  std::cerr << "bench_tokenizer: " << error.what() << "\n";
  return 2;
}

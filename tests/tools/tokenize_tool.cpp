// Runs our tokenizer for tests/oracle/tokenizer_oracle.py and for benchmarks.
//   tokenize_tool MODEL < lines.jsonl     MODEL: .gguf, a folder, or a tokenizer.json
//   tokenize_tool MODEL --bench FILE      MB/s of one thread over the lines of FILE
// Each line is {"hex": bytes in hexadecimal or "text": ..., "add_special"?, "parse_special"?, "skip_special"?} or
// {"ids": [...], "skip_special"?}; the answer is {"ids": [...], "text": decoded, "streamed": decoded in parts}.

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "formats/model_file.h"
#include "text/tokenizer.h"

namespace {

using nlohmann::json;
using thimble::Error;
using thimble::Tokenizer;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot open " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

Tokenizer open_tokenizer(const std::filesystem::path& path) {
  if (path.extension() != ".json") return Tokenizer::from(thimble::open_vocabulary(path));
  thimble::Vocabulary vocabulary;
  vocabulary.tokenizer_json = read_file(path);
  return Tokenizer::from(vocabulary);
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

json answer(const Tokenizer& tokenizer, const json& request) {
  std::vector<int32_t> ids;
  if (request.contains("ids")) {
    ids = request.at("ids").get<std::vector<int32_t>>();
  } else {
    const std::string text =
        request.contains("hex") ? from_hex(request.at("hex")) : request.at("text").get<std::string>();
    ids = tokenizer.encode(text, {request.value("add_special", false), request.value("parse_special", false)});
  }
  const bool skip = request.value("skip_special", false);
  thimble::StreamDecoder stream(tokenizer, skip);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    json(part).dump();  // throws where the part ends inside a character
    streamed += part;
  }
  streamed += stream.flush();
  return {{"ids", ids}, {"text", tokenizer.decode(ids, skip)}, {"streamed", streamed}};
}

void bench(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> lines;
  size_t bytes = 0;
  for (std::string line; std::getline(file, line); bytes += lines.back().size()) lines.push_back(line + "\n");
  double first = 0, best = 1e9;
  size_t tokens = 0;
  for (int round = 0; round < 5; ++round) {
    tokens = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const std::string& line : lines) tokens += tokenizer.encode(line).size();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, seconds);
    if (round == 0) first = seconds;
  }
  std::cout << json{{"bytes", bytes},
                    {"tokens", tokens},
                    {"seconds", best},
                    {"mb_per_s", bytes / best / 1e6},
                    {"first_mb_per_s", bytes / first / 1e6}}
            << "\n";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2 && !(argc == 4 && std::string(argv[2]) == "--bench")) {
    std::cerr << "usage: tokenize_tool MODEL [--bench FILE]\n";
    return 2;
  }
  const Tokenizer tokenizer = open_tokenizer(argv[1]);
  if (argc == 4) {
    bench(tokenizer, argv[3]);
    return 0;
  }
  for (std::string line; std::getline(std::cin, line);) std::cout << answer(tokenizer, json::parse(line)) << "\n";
  return 0;
} catch (const std::exception& error) {
  std::cerr << "tokenize_tool: " << error.what() << "\n";
  return 2;
}

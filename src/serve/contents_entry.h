#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace thimble {

// What the contents log keeps of one answered request: the columns of its tables `requests` and `answers`
// (contents_database.cpp, docs/serve.md). What is not there is NULL. JSON columns hold JSON text.
struct ContentsEntry {
  struct OneAnswer {
    std::string text;
    std::optional<std::string> reasoning;
    std::optional<std::string> tool_calls;  // JSON, in the form of OpenAI's message.tool_calls
    std::optional<std::string> finish;      // stop, length, tool_calls, cancelled; none where the request failed before
    int64_t tokens = 0;
    std::optional<double> first_token_ms, total_ms;  // from asking the engine
  };

  std::string id;            // that the answer carries: chatcmpl-..., cmpl-..., resp_..., msg_...
  std::string http_id;       // that the answer's x-request-id carries
  int64_t time_ms = 0;       // when it was asked, since 1970
  std::string path;          // of the API: /v1/chat/completions
  std::optional<std::string> key_name;  // never the key
  std::optional<std::string> model_asked;
  std::string model, base, base_fingerprint;  // that answered
  std::optional<std::string> adapter;         // its folder or file
  // The request's body, field by field as it came; parameters: all fields that have no column of their own.
  std::optional<std::string> messages, prompt, system, tools, response_format;
  std::string parameters = "{}";
  std::string status;  // "200", that of a failure, or "cancelled"
  std::optional<std::string> error;
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;  // as the answer's usage
  double total_ms = 0;
  std::vector<OneAnswer> answers;  // by choice; those of the first prompt first

  size_t bytes() const;  // about what it holds in memory
};

}  // namespace thimble

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "calls/call.h"
#include "calls/tool.h"
#include "data/row.h"

namespace thimble {

// A large model behind an OpenAI-compatible endpoint. Contacted only where the use case names one.
struct RemoteModel {
  std::string url;              // base address, with or without /v1: "http://127.0.0.1:8000/v1"
  std::string model;
  std::string api_key_env;      // environment variable that holds the key; empty: none is sent
  double input_price = 0;       // per million tokens, in the user's currency
  double output_price = 0;
  double timeout_s = 120;
};

struct RemoteAnswer {
  std::string text;
  std::vector<Call> calls;
  std::vector<std::string> problems;  // calls that could not be read: data, not errors
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  double seconds = 0;
  double cost = 0;
};

// One chat completion (temperature 0) over the row's turns with the tools offered. Throws Error naming the address
// and the reason where the endpoint can't be reached, refuses, or answers something that is not a chat completion.
RemoteAnswer ask(const RemoteModel& remote, std::string_view system, std::span<const Turn> turns,
                 std::span<const Tool> tools, int max_tokens);

}  // namespace thimble

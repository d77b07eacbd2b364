#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>

#include "infer/request.h"
#include "serve/metrics_text.h"

namespace thimble {

// What the server has counted since it started. Thread-safe.
class Metrics {
 public:
  // A request was answered. `endpoint` is a route, never what a client wrote; `model` is one that is or was served, or
  // empty, so that nobody can make labels without end.
  void request(std::string_view endpoint, int status, std::string_view model = "");

  // Tokens of an answer, as they come: so that a plot of tokens a second is smooth.
  void generated(const std::string& model, int64_t tokens);
  // An answer has ended; its tokens were told by generated(). `first`: the prompt's first answer, with which the prompt
  // counts.
  void answered(const std::string& model, const Answer& answer, bool first);

  void write(MetricsText& out) const;

 private:
  struct OfModel {
    OfModel();
    int64_t prompt = 0, cached = 0, generated = 0, forced = 0, drafted = 0, accepted = 0;
    int64_t stopped = 0, too_long = 0, cancelled = 0;
    Histogram first_token, between_tokens, whole, prompt_tokens, answer_tokens;
  };

  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, int64_t, std::less<>> requests_;  // model, endpoint, status
  std::map<std::string, OfModel> models_;
};

}  // namespace thimble

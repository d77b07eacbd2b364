#pragma once

#include <string>
#include <vector>

#include "core/clock.h"
#include "serve/answer_stream.h"
#include "serve/contents_entry.h"
#include "serve/generation.h"
#include "serve/http.h"

namespace thimble {

class ContentsLog;

// Gathers what was asked and answered in one request, of whatever API, and gives it to the contents log at its end:
// once the last answer is done, at a failure, or as cancelled where the server ends before.
class LoggedRequest {
 public:
  // `body`: what the client sent; `id`: what its answer is called. The log must outlive this.
  LoggedRequest(ContentsLog& log, const Exchange& exchange, const Json& body, const PreparedGeneration& prepared,
                std::string id);
  ~LoggedRequest();
  LoggedRequest(const LoggedRequest&) = delete;
  LoggedRequest& operator=(const LoggedRequest&) = delete;

  // As GenerationListener's, on the engine's thread. `call_ids`: that the client was given for the answer's calls.
  void events(int index, const std::vector<AnswerEvent>& events, const Answer& so_far,
              const std::vector<std::string>& call_ids);
  void done(int index, const std::vector<AnswerEvent>& last, const Answer& answer,
            const std::vector<std::string>& call_ids);
  void failed(const ApiError& error);

 private:
  struct Choice {
    WholeAnswer whole;
    std::vector<std::string> call_ids;
    int64_t prompt_tokens = 0, cached_tokens = 0;
    ContentsEntry::OneAnswer entry;  // but for what was said
  };
  void end(std::string status);

  ContentsLog& log_;
  Clock::time_point start_ = Clock::now();
  size_t choices_;  // to each prompt
  std::vector<Choice> answers_;
  size_t open_;
  bool cancelled_ = false;
  ContentsEntry entry_;
};

}  // namespace thimble

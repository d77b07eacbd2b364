#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calls/tool.h"
#include "data/row.h"
#include "infer/request.h"
#include "serve/answer_stream.h"
#include "serve/api_error.h"
#include "serve/engine_thread.h"
#include "serve/model_shelf.h"

namespace thimble {

// What every API's request comes down to: a conversation or a prompt, what may be answered, how it is sampled.
struct GenerationRequest {
  std::string model;
  std::vector<Turn> turns;                                // a conversation, or ...
  std::optional<std::vector<std::vector<int32_t>>> prompts;  // ... texts that are simply continued
  std::optional<std::vector<Tool>> tools;                 // not given: those that the model was taught, if any
  CallMode calls = CallMode::kAuto;
  std::string only_tool;                                  // the one that must be called; empty: any
  bool parallel_calls = true;
  std::optional<Json> text_schema;                        // what is said instead of calls is a value of this schema
  GenerateRequest how;                                    // limits, sampling, stop strings; prompt and constraint aside
  bool temperature_given = false;
  bool max_tokens_given = false;
  int choices = 1;                                        // answers to each prompt
  bool stream = false;
  bool include_usage = false;                             // in the stream
};

// A request that a model can be asked: prompts and grammar are made.
struct PreparedGeneration {
  std::shared_ptr<const ServedModel> model;
  std::vector<GenerateRequest> requests;  // one a prompt, each answered `choices` times
  std::shared_ptr<const ConstraintSet> constraint;
  AnswerStream::Form form;
  int choices = 1;
  double most_s = 0;
};

struct GenerationLimits {
  int default_max_tokens = 1024;  // of an answer, where neither the client nor the use case says
  double most_s = 600;            // from a request to its answers' end; 0: as long as it takes
};

// Renders the conversation, counts it, compiles the grammar. Throws ApiError: 404 for an unknown model, 400 where the
// prompt doesn't fit (with both numbers), a tool's schema can't be enforced, the named tool is none, ...
PreparedGeneration prepare(const ModelShelf& shelf, const GenerationRequest& request, const GenerationLimits& limits);

// What happens to a generation, on the engine's thread. `index` counts choices, those of the first prompt first.
struct GenerationListener {
  std::function<void(int index, const std::vector<AnswerEvent>& events, const Answer& so_far)> on_events;
  // The last events (may be none) come with the end.
  std::function<void(int index, const std::vector<AnswerEvent>& events, const Answer& answer)> on_done;
  std::function<void(const ApiError& error)> on_error;
};

// Cancels what it stands for. Copies are handles of the same.
class RunningGeneration {
 public:
  RunningGeneration() = default;
  RunningGeneration(EngineThread& thread, std::vector<EngineThread::Ticket> tickets)
      : thread_(&thread), tickets_(std::move(tickets)) {}
  void cancel() const {
    for (const auto ticket : tickets_) thread_->cancel(ticket);
  }

 private:
  EngineThread* thread_ = nullptr;
  std::vector<EngineThread::Ticket> tickets_;
};

RunningGeneration generate(EngineThread& thread, PreparedGeneration prepared, GenerationListener listener);

}  // namespace thimble

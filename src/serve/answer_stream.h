#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace thimble {

// A piece of an answer, as clients are told of it.
struct AnswerEvent {
  enum class Kind : uint8_t {
    kReasoning,  // text of a plan, or between <think> and </think>
    kText,
    kCall,       // a call begins; text is the tool's name
    kArguments,  // a piece of the JSON text of the last call's arguments
  };
  Kind kind = Kind::kText;
  std::string text;
  bool operator==(const AnswerEvent&) const = default;
};

// Parts what a model writes into reasoning, text and calls while it is being written (Hermes' form of calls,
// calls/hermes.h; <think> as Qwen 3 and DeepSeek-R1 write it). Whatever the model writes comes out as something: a
// block that holds no call is text. What may yet turn out to be a tag is held back until that is known, so the events
// are the same however the text is cut into pieces, but for where they are cut.
class AnswerStream {
 public:
  struct Form {
    bool plan = false;      // a line comes before the answer
    bool calls = false;     // tools were offered: <tool_call> begins a call
    bool thinking = false;  // the prompt ends inside of <think>
  };
  explicit AnswerStream(const Form& form);

  std::vector<AnswerEvent> feed(std::string_view piece);
  std::vector<AnswerEvent> finish();  // the answer has ended, perhaps in the middle of something

 private:
  enum class State : uint8_t { kPlan, kBegin, kThink, kText, kHead, kArguments, kTail, kLoose };

  bool advance(bool last, std::vector<AnswerEvent>& out);
  bool read_text(bool last, std::vector<AnswerEvent>& out);
  bool read_head(bool last);
  bool read_arguments(std::vector<AnswerEvent>& out);
  bool read_loose(bool last, std::vector<AnswerEvent>& out);
  void say(AnswerEvent::Kind kind, size_t bytes, std::vector<AnswerEvent>& out);

  Form form_;
  State state_;
  bool may_think_;
  bool said_text_ = false;
  std::string rest_;  // not yet decided
  // Of the arguments that are being read.
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

// All events of an answer, put together.
struct WholeAnswer {
  struct WrittenCall {
    std::string name;
    std::string arguments;  // JSON, unless the answer was cut in the middle
  };
  std::string reasoning;
  std::string text;
  std::vector<WrittenCall> calls;

  void add(const AnswerEvent& event);
};

}  // namespace thimble

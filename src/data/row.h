#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calls/call.h"
#include "calls/tool.h"

namespace thimble {

// One message of a conversation before the answer.
struct Turn {
  std::string role;           // system, user, assistant or tool
  std::string content;        // may be empty for an assistant that calls
  std::vector<Call> calls{};  // an earlier assistant's
  std::string name{};         // of the tool that a tool message comes from; may be empty
  std::string call_id{};      // which call a tool message answers; may be empty
  double weight = 0;          // of an assistant's message, from 0 to 1: what learning it counts; 0: it is only given

  bool operator==(const Turn&) const = default;
};

// A wrong answer to a row's conversation, as it would have been written. It need not fit any schema.
struct RejectedAnswer {
  std::vector<Call> calls;
  std::string text;
  std::string plan;  // the line before it, for models that plan; empty: made from its calls
};

// The one row type, from reader to loss: a conversation and what is right to answer to it.
struct Row {
  std::string id;                          // as given; empty where none was
  int number = 0;                          // line in its file, from 1
  std::vector<Turn> turns;                 // what the model sees; the last one is of the user or of a tool
  std::vector<Call> calls;                 // gold calls in order; empty where none is right
  std::string answer;                      // gold text; may be empty where there are calls
  std::string plan;                        // the line before it, where a teacher wrote it; empty: made (plan.h)
  double answer_weight = 1;                // as a turn's: what learning the answer counts
  double weight = 1;                       // above 0: what the whole row counts beside others
  std::string kind;                        // free label for reports: single, multi, none, missing
  std::string missing;                     // name of the required argument that the request lacks
  std::string intent;                      // without calls: the tool that lacks an argument, or a name for what is
                                           // wanted that no tool does ("cancel_leave"); plans are made from it
  std::optional<std::vector<Tool>> tools;  // this row's own tools instead of the use case's
  // For preference tuning: a worse answer to the same, or a verdict on this one, false where it is not wanted.
  std::optional<RejectedAnswer> rejected;
  std::optional<bool> label;

  // The request that the answer is to: the last user message.
  std::string_view query() const {
    for (auto turn = turns.rbegin(); turn != turns.rend(); ++turn) {
      if (turn->role == "user") return turn->content;
    }
    return {};
  }
};

}  // namespace thimble

#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "data/row.h"

namespace thimble {

// A plan is one line that a model writes before its answer, where its use case says so (plan = true in thimble.toml):
// what is meant, and what of it the request gives. To decide between calls and text at an answer's first token asks a
// small model for everything at once; a plan takes it in steps, each of which looks at one thing.
//   a call                 reset_password: user, system
//   several                reset_password: user, system; ticket_status: ticket
//   an argument is missing reset_password: user, no system
//   no tool does it        cancel_leave: no tool
// The first is made from the row's calls, the last two from its `intent` and `missing`. Throws Error without the row's
// place where a row without calls has no intent.
std::string plan_of(const Row& row, std::span<const Tool> tools);

// What a model wrote, parted into its plan and its answer. Without a line break all is plan.
std::pair<std::string_view, std::string_view> split_plan(std::string_view text);

}  // namespace thimble

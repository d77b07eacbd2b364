#pragma once

#include <span>
#include <string>
#include <vector>

#include "calls/tool.h"
#include "data/row.h"

namespace thimble {

// The order of a tool's arguments beside the order in which requests name their values. Answers list arguments as the
// schema does; where that is the requests' order too, the model copies from left to right instead of searching.
struct ArgumentOrder {
  std::string tool;
  std::vector<std::string> better;  // all properties, in the order that most requests have them in
  size_t pairs = 0;                 // of two arguments of one call whose values both stand in the request
  size_t in_order = 0;              // of these, in the order of the schema
  size_t in_better_order = 0;       // and in the better one
};

// One for each tool of `tools` with calls of two or more such arguments. Rows with tools of their own are left out. The
// better order is a local optimum: no property can be moved to have more pairs in order.
std::vector<ArgumentOrder> argument_orders(std::span<const Row> rows, std::span<const Tool> tools);

}  // namespace thimble

#pragma once

#include <string>

#include "calls/json.h"

namespace thimble {

// One tool call: gold or predicted.
struct Call {
  std::string name;
  Json arguments = Json::object();  // always an object

  bool operator==(const Call&) const = default;
};

}  // namespace thimble

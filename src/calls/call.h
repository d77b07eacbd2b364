#pragma once

#include <string>

#include "calls/json.h"

namespace thimble {

// One tool call: gold or predicted.
struct Call {
  std::string name;
  Json arguments = Json::object();  // always an object
};

}  // namespace thimble

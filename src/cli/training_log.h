#pragma once

#include <cstdio>
#include <string>

#include "cli/terminal.h"
#include "core/clock.h"
#include "train/trainer.h"

namespace thimble {

// What a training tells while it goes on: a line on a terminal that is redrawn, a line of text for every evaluation
// and, where nobody looks at a terminal, one a minute; or, for machines, a JSON object a line for every step.
class TrainingLog {
 public:
  TrainingLog(std::FILE* out, bool json) : out_(out), json_(json), last_line_(Clock::now()) {}

  void progress(const Progress& p) { line_.show(p); }
  void step(const HistoryPoint& point);
  void say(const std::string& what);   // on standard error
  void warn(const std::string& what);  // there too

  void clear() { line_.clear(); }

 private:
  std::FILE* out_;
  bool json_;
  ProgressLine line_;
  Clock::time_point last_line_;
};

}  // namespace thimble

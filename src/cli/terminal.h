#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/progress.h"

namespace thimble {

// Colours only where a person looks: a terminal, NO_COLOR unset (no-color.org), TERM not "dumb".
enum class Style { kPlain, kBold, kDim, kRed, kGreen, kYellow, kCyan };
bool is_terminal(std::FILE* stream);
std::string styled(std::FILE* stream, Style style, std::string_view text);

std::string human_bytes(double bytes);      // "98.4 MB"
std::string human_count(double count);      // "1,234" or "2.8 M"
std::string human_seconds(double seconds);  // "0.42 s", "3:07", "1:02:33"

// One line on standard error that shows what runs, how far, how fast and how long still; nothing where standard
// error is not a terminal. The first two seconds of a stage stay quiet.
class ProgressLine {
 public:
  ProgressLine() = default;
  ~ProgressLine() { clear(); }
  ProgressFn fn() {
    return [this](const Progress& p) { show(p); };
  }
  void show(const Progress& progress);
  void clear();  // before other output

 private:
  using Clock = std::chrono::steady_clock;
  std::string stage_;
  Clock::time_point start_, drawn_;
  double start_done_ = 0;
  bool visible_ = false;
};

}  // namespace thimble

#include "cli/terminal.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace thimble {

bool is_terminal(std::FILE* stream) { return ::isatty(::fileno(stream)) != 0; }

namespace {

bool colours(std::FILE* stream) {
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* term = std::getenv("TERM");
  return is_terminal(stream) && (term == nullptr || std::strcmp(term, "dumb") != 0);
}

int columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 80;
}

}  // namespace

std::string styled(std::FILE* stream, Style style, std::string_view text) {
  if (style == Style::kPlain || !colours(stream)) return std::string(text);
  static constexpr const char* kCodes[] = {"0", "1", "2", "31", "32", "33", "36"};
  return fmt::format("\033[{}m{}\033[0m", kCodes[static_cast<size_t>(style)], text);
}

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1000 && unit < 4) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes)
                   : fmt::format("{:.{}f} {}", bytes, bytes < 100 ? 1 : 0, kUnits[unit]);
}

std::string human_count(double count) {
  if (count >= 1e7) return fmt::format("{:.1f} M", count / 1e6);
  std::string digits = fmt::format("{:.0f}", count);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string human_seconds(double seconds) {
  if (seconds < 60) return fmt::format("{:.{}f} s", seconds, seconds < 10 ? 2 : 0);
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

void ProgressLine::show(const Progress& p) {
  if (!is_terminal(stderr)) return;
  const auto now = Clock::now();
  if (p.stage != stage_) {
    clear();
    stage_ = p.stage;
    start_ = now;
    drawn_ = {};
    start_done_ = p.done;
  }
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  if (elapsed < 2 || std::chrono::duration<double>(now - drawn_).count() < 0.1) return;
  drawn_ = now;

  const double rate = (p.done - start_done_) / elapsed;
  const auto amount = [&](double n) { return p.unit == "bytes" ? human_bytes(n) : human_count(n); };
  std::string line = p.stage;
  if (p.total > 0) {
    constexpr int kWidth = 24;
    const double share = std::clamp(p.done / p.total, 0.0, 1.0);
    const int filled = static_cast<int>(std::lround(share * kWidth));
    line += fmt::format(" [{}{}] {:3.0f} %", std::string(static_cast<size_t>(filled), '#'),
                        std::string(static_cast<size_t>(kWidth - filled), '.'), 100 * share);
  }
  line += fmt::format("  {}", amount(p.done));
  if (p.total > 0) line += "/" + amount(p.total);
  if (p.unit != "bytes") line += " " + p.unit;
  if (rate > 0) {
    line += p.unit == "bytes" ? fmt::format("  {}/s", human_bytes(rate))
                              : fmt::format("  {}/s", rate >= 10 ? human_count(rate) : fmt::format("{:.2f}", rate));
    if (p.total > p.done) line += fmt::format("  {} left", human_seconds((p.total - p.done) / rate));
  }
  if (!p.detail.empty()) line += "  " + p.detail;
  const auto width = static_cast<size_t>(columns() - 1);
  if (line.size() > width) line.resize(width);
  fmt::print(stderr, "\r\033[K{}", line);
  std::fflush(stderr);
  visible_ = true;
}

void ProgressLine::clear() {
  if (visible_) {
    fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
  }
  visible_ = false;
}

}  // namespace thimble

#include "eval/svg.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace thimble {
namespace {

// A round step that gives about `count` ticks over a range.
double tick_step(double range, int count) {
  const double raw = range / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double m : {1.0, 2.0, 5.0})
    if (raw <= m * power) return m * power;
  return 10 * power;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string line_chart(const std::vector<Series>& series, const std::string& x_label, const std::string& y_label) {
  constexpr double kWidth = 720, kHeight = 280, kLeft = 52, kRight = 12, kTop = 12, kBottom = 40;
  double x_max = 0, y_min = 1e300, y_max = -1e300;
  for (const Series& s : series)
    for (const auto& [x, y] : s.points) {
      x_max = std::max(x_max, x);
      y_min = std::min(y_min, y);
      y_max = std::max(y_max, y);
    }
  if (x_max <= 0 || y_min > y_max) return "";
  if (y_max - y_min < 1e-9) y_max = y_min + 1;
  const bool logarithmic = y_min > 0 && y_max > 20 * y_min;
  if (logarithmic) {
    y_min = std::max(y_min, y_max / 1e4);  // a single stray value would flatten all others
  } else if (y_min >= 0) {
    y_min = std::max(0.0, y_min - 0.05 * (y_max - y_min));
  }
  const auto height = [&](double y) {
    return logarithmic ? std::log(std::max(y, y_min) / y_min) / std::log(y_max / y_min) : (y - y_min) / (y_max - y_min);
  };
  const auto px = [&](double x) { return kLeft + x / x_max * (kWidth - kLeft - kRight); };
  const auto py = [&](double y) { return kHeight - kBottom - height(y) * (kHeight - kTop - kBottom); };

  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{} over {}\">", kWidth, kHeight,
                                escape_html(y_label), escape_html(x_label));
  std::vector<double> ticks;
  if (logarithmic) {
    for (double power = std::pow(10, std::floor(std::log10(y_min))); power <= y_max; power *= 10)
      for (const double m : y_max / y_min > 1e3 ? std::vector{1.0} : std::vector{1.0, 2.0, 5.0})
        if (m * power >= y_min && m * power <= y_max) ticks.push_back(m * power);
  } else {
    const double step = tick_step(y_max - y_min, 5);
    for (double y = std::ceil(y_min / step) * step; y <= y_max + 1e-9; y += step) ticks.push_back(y);
  }
  for (const double y : ticks)
    out += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text class=\"tick\" x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:.3g}</text>",
        kLeft, kWidth - kRight, py(y), kLeft - 6, py(y) + 4, y);
  const double x_step = tick_step(x_max, 8);
  for (double x = 0; x <= x_max + 1e-9; x += x_step)
    out += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.6g}</text>", px(x),
                       kHeight - kBottom + 16, x);
  out += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>", (kLeft + kWidth) / 2,
                     kHeight - 6, escape_html(x_label));
  double legend = kLeft + 14;
  for (const Series& s : series) {
    std::string path;
    for (const auto& [x, y] : s.points) path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px(x), py(y));
    out += fmt::format("<path class=\"curve {}\" d=\"{}\"/>", s.css_class, path);
    if (s.dots)
      for (const auto& [x, y] : s.points)
        out +=
            fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"><title>{}: {:.4f}</title></circle>",
                        s.css_class, px(x), py(y), escape_html(s.name), y);
    out += fmt::format(
        "<line class=\"curve {}\" x1=\"{}\" x2=\"{}\" y1=\"20\" y2=\"20\"/>"
        "<text class=\"tick\" x=\"{}\" y=\"24\">{}</text>",
        s.css_class, legend, legend + 22, legend + 28, escape_html(s.name));
    legend += 60 + 6.5 * static_cast<double>(s.name.size());
  }
  return out + "</svg>";
}

std::string interval_mark(double value, double low, double high, double bar) {
  const auto px = [](double share) { return 4 + 112 * std::clamp(share, 0.0, 1.0); };
  std::string out = fmt::format(
      "<svg class=\"mark\" viewBox=\"0 0 120 14\" aria-hidden=\"true\">"
      "<line class=\"grid\" x1=\"4\" x2=\"116\" y1=\"7\" y2=\"7\"/>"
      "<line class=\"whisker\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"7\" y2=\"7\"/>",
      px(low), px(high));
  if (bar >= 0) out += fmt::format("<line class=\"bar\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"1\" y2=\"13\"/>", px(bar));
  return out + fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"7\" r=\"4\"/></svg>", px(value));
}

}  // namespace thimble

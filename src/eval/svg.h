#pragma once

#include <string>
#include <utility>
#include <vector>

namespace thimble {

struct Series {
  std::string name;
  std::string css_class;  // colour comes from the page's style sheet
  std::vector<std::pair<double, double>> points;
  bool dots = false;
};

// A line chart with axes and a legend; the vertical axis covers the data, in logarithms where
// they reach over more than a factor of 20, the horizontal one starts at 0.
std::string line_chart(const std::vector<Series>& series, const std::string& x_label, const std::string& y_label);

// A share between 0 and 1 with its interval, as a dot on a rule; `bar` draws a threshold where not negative.
std::string interval_mark(double value, double low, double high, double bar = -1);

std::string escape_html(std::string_view text);

}  // namespace thimble

#include <ctime>
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/jinja.h"

// Reads lines of {"template": ..., "context": {...}} and answers each with {"text": ...} or {"error": ...}, so that
// tests/oracle/jinja_oracle.py can compare it with Python's jinja2. The clock stands at 2024-07-26 08:03:09.
int main() {
  using nlohmann::ordered_json;
  thimble::jinja::RenderOptions options;
  options.now.emplace();
  options.now->tm_year = 124;
  options.now->tm_mon = 6;
  options.now->tm_mday = 26;
  options.now->tm_hour = 8;
  options.now->tm_min = 3;
  options.now->tm_sec = 9;
  options.now->tm_wday = 5;
  options.now->tm_yday = 207;
  std::string line;
  while (std::getline(std::cin, line)) {
    ordered_json answer;
    try {
      const auto request = ordered_json::parse(line);
      const auto made = thimble::jinja::Template::parse(request.at("template").get<std::string>());
      const auto result = request.value("mark", false)
                              ? made.render_marked(request.at("context"), options)
                              : thimble::jinja::RenderResult{made.render(request.at("context"), options), {}};
      answer["text"] = result.text;
      for (const auto& span : result.generated) answer["spans"].push_back({span.begin, span.end});
    } catch (const thimble::Error& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n" << std::flush;
  }
}

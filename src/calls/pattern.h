#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace thimble {

// An ECMA 262 regular expression in Unicode mode as PCRE2 reads it: unanchored search, ASCII classes.
class Pattern {
 public:
  Pattern(const std::string& text, std::string_view where);  // throws Error with the reason
  bool found_in(std::string_view utf8) const;                // a search that runs out of steps finds nothing

 private:
  std::shared_ptr<void> code_;
};

}  // namespace thimble

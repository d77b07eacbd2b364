#pragma once

#include <span>
#include <string_view>

namespace thimble {

// A file of the web page, part of the program. CMake makes them from ui/ (ui/build.mjs).
struct PageFile {
  std::string_view path;  // "/page.js"
  std::string_view type;
  std::string_view etag;  // with its quotes
  std::string_view plain;
  std::string_view gzip;  // the same content; empty: there is none
};
std::span<const PageFile> page_files();

}  // namespace thimble

#include <array>

#include "serve/page.h"

// Stands in for the page where the program was built without its npm packages.
namespace thimble {
namespace {

constexpr std::string_view kText =
    "This program was built without its web page. To have it, install node and npm, then run\n"
    "tools/setup.sh build and build again. The API is here all the same: docs/serve.md.\n";
constexpr std::array kFiles = {PageFile{"/", "text/plain; charset=utf-8", "\"not-built\"", kText, {}}};

}  // namespace

std::span<const PageFile> page_files() { return kFiles; }

}  // namespace thimble

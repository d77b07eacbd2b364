# PCRE2 splits text (Unicode properties, JIT), utf8proc normalises it, simdjson reads tokenizer.json.
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
find_package(simdjson REQUIRED)
target_link_libraries(thimble_text PUBLIC nlohmann_json::nlohmann_json
                      PRIVATE PkgConfig::PCRE2 PkgConfig::UTF8PROC simdjson::simdjson)

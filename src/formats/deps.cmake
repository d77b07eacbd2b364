find_package(CURL REQUIRED)
find_package(ZLIB REQUIRED)
target_link_libraries(thimble_formats PUBLIC nlohmann_json::nlohmann_json PRIVATE CURL::libcurl ZLIB::ZLIB)

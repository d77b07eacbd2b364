find_package(CURL REQUIRED)
target_link_libraries(thimble_route PUBLIC CURL::libcurl)

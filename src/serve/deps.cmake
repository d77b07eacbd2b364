# Beast and Asio are headers only. Beast stands in http_parser.cpp alone, which takes long to compile.
find_package(Boost 1.81 REQUIRED)
target_link_libraries(thimble_serve PUBLIC nlohmann_json::nlohmann_json PRIVATE Boost::headers OpenSSL::SSL)
# Takes outgoing connections from the process (--offline).
pkg_check_modules(SECCOMP REQUIRED IMPORTED_TARGET libseccomp)
target_link_libraries(thimble_serve PRIVATE PkgConfig::SECCOMP)

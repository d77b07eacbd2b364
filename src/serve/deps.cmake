# Beast and Asio are headers only. Beast stands in http_parser.cpp alone, which takes long to compile.
find_package(Boost 1.81 REQUIRED)
target_link_libraries(thimble_serve PUBLIC nlohmann_json::nlohmann_json PRIVATE Boost::headers OpenSSL::SSL)
# Takes outgoing connections from the process (--offline).
pkg_check_modules(SECCOMP REQUIRED IMPORTED_TARGET libseccomp)
target_link_libraries(thimble_serve PRIVATE PkgConfig::SECCOMP)

# The contents log (--log-contents). 3.38: STRICT tables, and JSON's operators for those who read it.
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3>=3.38)
target_link_libraries(thimble_serve PRIVATE PkgConfig::SQLITE)

# The page is made from ui/ where its npm packages are (tools/setup.sh puts them there); else it says how to get it.
find_program(NODE node)
if(NODE AND EXISTS ${CMAKE_SOURCE_DIR}/ui/node_modules/esbuild)
  file(GLOB_RECURSE page_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/ui/src/*)
  add_custom_command(
    OUTPUT ${CMAKE_BINARY_DIR}/page_bundle.cpp
    COMMAND ${NODE} ${CMAKE_SOURCE_DIR}/ui/build.mjs ${CMAKE_BINARY_DIR}/page_bundle.cpp
    DEPENDS ${page_sources} ${CMAKE_SOURCE_DIR}/ui/build.mjs ${CMAKE_SOURCE_DIR}/ui/package-lock.json
    VERBATIM)
  target_sources(thimble_serve PRIVATE ${CMAKE_BINARY_DIR}/page_bundle.cpp)
else()
  target_sources(thimble_serve PRIVATE ${CMAKE_SOURCE_DIR}/ui/not_built.cpp)
endif()

find_package(CLI11 REQUIRED)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
target_link_libraries(thimble_cli PUBLIC PkgConfig::EDIT CLI11::CLI11)

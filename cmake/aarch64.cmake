# Cross-compiling for 64-bit ARM Linux on Debian, with libraries of the arm64 architecture beside the machine's own
# (tools/test_arm.sh installs what is needed). Tests run under QEMU; ARM_CPU names the processor that it plays.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(ARM_CPU max CACHE STRING "The processor that QEMU plays")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu ${ARM_CPU})
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
set(MOLD OFF CACHE BOOL "The cross compiler brings its own linker")

# g++ 12's AVX-512 intrinsics start from a value that is never read, and warn about it where they are inlined.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(thimble_kernels PRIVATE -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

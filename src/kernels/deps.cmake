# g++ 12's AVX-512 intrinsics start from a value that is never read, and warn about it where they are inlined.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(thimble_kernels PRIVATE -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
# Scheduled before registers are given out, the loads of a NEON kernel are moved before all the sums that use them, and
# the sums go through memory.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  file(GLOB neon_sources ${CMAKE_SOURCE_DIR}/src/kernels/*_neon*.cpp)
  set_source_files_properties(${neon_sources} PROPERTIES COMPILE_OPTIONS -fno-schedule-insns)
endif()

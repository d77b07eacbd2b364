# g++ 12's AVX-512 intrinsics start from a value that is never read, and warn about it where they are inlined.
target_compile_options(thimble_kernels PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)

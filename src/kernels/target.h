#pragma once

// For functions with AVX-512 intrinsics in files that are compiled for any machine: callers ask cpu_level() first.
// Macros, because the attribute takes nothing but a literal; on functions instead of -mavx512* for the file, because
// inline functions of the standard library would otherwise be compiled for AVX-512 and leak into code that runs anywhere.
#define THIMBLE_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")))
#define THIMBLE_AVX512_INLINE THIMBLE_AVX512 __attribute__((always_inline)) static inline
#define THIMBLE_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,f16c,fma")))

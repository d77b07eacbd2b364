#pragma once

// For functions with AVX-512 intrinsics in files that are compiled for any machine: callers ask cpu_level() first.
// A macro, because the attribute takes nothing but a literal.
#define THIMBLE_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,f16c,fma")))

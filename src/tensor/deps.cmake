# Dequantised values are defined by separate multiplications and additions: no fused ones where the machine has them.
target_compile_options(thimble_tensor PRIVATE -ffp-contract=off)

"""The fused backend: Triton kernels, replayed as one CUDA graph a request.

Data flow of a packing, one kernel an arrow; the host is not asked in between:

    replicate or prepare -> order -> deal -> refine -> choose

Kernels do arithmetic only; `starts`, `jobs` and `hierarchy` own grids, strides and
buffers. Triton's language has no types to check, no starred tuples, and `if`s that the
compiler decides: hence the exceptions at the top of the kernels' files.

Legend: X rows, n items, P packs, S = n / P slots of a pack, T restarts, Y = X * T
starts, K heaviest and lightest packs. A name that ends in 2 is the power of two at or
above it, a vector's length; lengths and flags in capitals are known when compiling.
"""

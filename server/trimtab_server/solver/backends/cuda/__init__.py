"""The fused backend: Triton kernels, replayed as one CUDA graph for each request.

Data flow of a packing, one kernel for each arrow; the host is not involved in between:

    replicate or prepare -> order -> deal -> refine -> choose

Kernels do arithmetic only; `starts`, `jobs` and `hierarchy` own grids, strides and
buffers. Triton's language has no types to check, no starred tuples, and `if`s that are
decided at compile time: hence the exceptions at the top of the kernels' files.

Legend: X rows, n items, P packs, S = n / P slots of a pack, T restarts, Y = X * T
starts, K heaviest and lightest packs. A name that ends in 2 is the next power of two at
or above that size: the length of a vector. Lengths and flags in capitals are compile-time
constants.

Four tables hold the packing of a start. Kernels pass pointers to them as one tuple `packing`:

    member_ptr: int32 [S, P2], the item in each slot.
    weight_ptr: int32 [S, P2], the weight of that item.
    code_ptr: int32 [S, P2], its group, or -1 if no other item has that group.
    held_ptr: int16 [groups, P2], how many items of a group each pack holds.
"""

// Counts heap allocations, by taking the place of the C library's allocation functions in the
// executable that it is linked into. For benchmarks and tests.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/// Whether allocations are counted: with glibc, and without a sanitizer, which has functions of its
/// own.
int allocation_count_works(void);
/// Allocations of the calling thread since its start.
long allocation_count_of_thread(void);
/// Starts to count the allocations of all threads, from zero.
void allocation_count_begin(void);
/// Allocations of all threads since `allocation_count_begin`; stops counting.
long allocation_count_end(void);

#ifdef __cplusplus
}
#endif

// The register tile that all products share, private to this module.
#pragma once

#include "CTransformerKernels.h"

#define INLINE static inline __attribute__((always_inline))
#define MIN(x, y) ((x) < (y) ? (x) : (y))

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef float v16 __attribute__((vector_size(64), aligned(4)));

#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512bw")))
#endif

// What `first` says of C: the sums of the chain are added to it, replace it, or go on from it (whole
// tiles only): a chain that is cut in two so keeps its bits.
enum { TILE_ADDS = 0, TILE_REPLACES = 1, TILE_CONTINUES = 2 };

// `a` is row-major with row distance `lda`, or, with `lda` 0, packed as (k, rows); rows of `b` are
// `ldb` apart.
#define TILE_PARAMETERS                                                                            \
  int rows, ptrdiff_t k, const float *a, ptrdiff_t lda, const float *b, ptrdiff_t ldb, float *c,   \
      ptrdiff_t ldc, ptrdiff_t columns, int first

// Adds (or as `first` says) at most `rows` rows of A times a panel (k, width) of B to C.
typedef struct {
  const char *name;
  // Rows and columns of a tile.
  int rows, width;
  void (*run)(TILE_PARAMETERS);
} Kernel;

// The kernel for this processor, and that for the narrowest vectors.
const Kernel *tk_kernel(void);
const Kernel *tk_narrow_kernel(void);

// C (m, columns) += (or as `first` says) one chain of products: A (m, chain) times the panels of
// `columns` columns of B, each (chain, width) with rows `ldb` apart and `panel_distance` floats after
// the one before. One strip of A stays in the first-level cache for
// all panels. `a_transposed`: A is (chain, m), and `rows_of_a` holds 16 · chain floats.
void tk_multiply_chain(const Kernel *kernel, ptrdiff_t m, ptrdiff_t columns, ptrdiff_t chain,
                       const float *a, ptrdiff_t lda, int a_transposed, float *rows_of_a,
                       const float *panels, ptrdiff_t panel_distance, ptrdiff_t ldb, float *c,
                       ptrdiff_t ldc, int first);

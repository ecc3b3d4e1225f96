// Matrix multiplication for one row up to thousands, on one thread.
//
// Structure after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008):
// a block of B is packed into panels that stay in the second-level cache, and a micro-kernel keeps
// a tile of C in registers while it runs along k. Rows of A are read in place. Unlike in a BLAS, no
// path changes the order of additions of an element (see TK_GEMM_CHAIN), whatever the shape.

#include "CTransformerKernels.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MIN(x, y) ((x) < (y) ? (x) : (y))

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef float v16 __attribute__((vector_size(64), aligned(4)));

enum { MAX_ROWS = 12, MAX_WIDTH = 32 };

// One register tile: `rows` rows of C × 2 vectors, over one chain of `k` products. `rows` is a
// constant once inlined, so the sums live in registers. b: packed panel (k, 2 vectors). Columns
// from `columns` on are not stored. `first`: nothing was added to C before.
#define DEFINE_TILE(NAME, VECTOR, LANES, TARGET)                                                   \
  TARGET INLINE void NAME##_tile(const int rows, ptrdiff_t k, const float *a, ptrdiff_t lda,       \
                                 const float *b, float *c, ptrdiff_t ldc, ptrdiff_t columns,       \
                                 int first) {                                                      \
    VECTOR s0[MAX_ROWS], s1[MAX_ROWS];                                                             \
    for (int i = 0; i < rows; i++) s0[i] = s1[i] = (VECTOR){0};                                    \
    for (ptrdiff_t p = 0; p < k; p++) {                                                            \
      VECTOR b0 = *(const VECTOR *)(b + p * 2 * LANES);                                            \
      VECTOR b1 = *(const VECTOR *)(b + p * 2 * LANES + LANES);                                    \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {                          \
        VECTOR x = a[i * lda + p] - (VECTOR){0};                                                   \
        s0[i] += x * b0;                                                                           \
        s1[i] += x * b1;                                                                           \
      }                                                                                            \
    }                                                                                              \
    if (columns == 2 * LANES) {                                                                    \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {                          \
        VECTOR *o0 = (VECTOR *)(c + i * ldc), *o1 = (VECTOR *)(c + i * ldc + LANES);               \
        *o0 = first ? s0[i] : *o0 + s0[i];                                                         \
        *o1 = first ? s1[i] : *o1 + s1[i];                                                         \
      }                                                                                            \
    } else {                                                                                       \
      float row[2 * LANES];                                                                        \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {                          \
        *(VECTOR *)row = s0[i];                                                                    \
        *(VECTOR *)(row + LANES) = s1[i];                                                          \
        for (ptrdiff_t j = 0; j < columns; j++)                                                    \
          c[i * ldc + j] = first ? row[j] : c[i * ldc + j] + row[j];                               \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  TARGET static void NAME##_rows(int rows, ptrdiff_t k, const float *a, ptrdiff_t lda,             \
                                 const float *b, float *c, ptrdiff_t ldc, ptrdiff_t columns,       \
                                 int first)

#define TILE_CASE(NAME, ROWS)                                                                      \
  case ROWS: NAME##_tile(ROWS, k, a, lda, b, c, ldc, columns, first); break;

#define TILE_CASES_6(NAME)                                                                         \
  TILE_CASE(NAME, 1)                                                                               \
  TILE_CASE(NAME, 2) TILE_CASE(NAME, 3) TILE_CASE(NAME, 4) TILE_CASE(NAME, 5) TILE_CASE(NAME, 6)

#if defined(__x86_64__)
DEFINE_TILE(avx512, v16, 16, __attribute__((target("avx512f,avx512vl")))) {
  switch (rows) {
    TILE_CASES_6(avx512)
    TILE_CASE(avx512, 7)
    TILE_CASE(avx512, 8)
    TILE_CASE(avx512, 9)
    TILE_CASE(avx512, 10)
    TILE_CASE(avx512, 11)
    TILE_CASE(avx512, 12)
  }
}
#endif

// 16 columns as two vectors of 8: 12 + 3 registers of AVX2. On other processors the compiler
// splits the vectors as it must.
DEFINE_TILE(narrow, v8, 8, ) {
  switch (rows) { TILE_CASES_6(narrow) }
}

typedef struct {
  const char *name;
  // Rows and columns of a tile.
  int rows, width;
  void (*run)(int rows, ptrdiff_t k, const float *a, ptrdiff_t lda, const float *b, float *c,
              ptrdiff_t ldc, ptrdiff_t columns, int first);
} Kernel;

#if defined(__AVX2__) && defined(__FMA__)
static const Kernel narrow = {"avx2", 6, 16, narrow_rows};
#else
static const Kernel narrow = {"generic", 6, 16, narrow_rows};
#endif

static const Kernel *kernel(void) {
#if defined(__x86_64__)
  static const Kernel wide = {"avx512", 12, 32, avx512_rows};
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) return &wide;
#endif
  return &narrow;
}

const char *tk_gemm_kernel(void) { return kernel()->name; }

ptrdiff_t tk_pack_width(void) { return kernel()->width; }

// Transposes 8 × 8: rows of `b` become columns of `out`.
INLINE void transpose_8x8(const float *b, ptrdiff_t ldb, float *out, ptrdiff_t ld_out) {
  v8 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = *(const v8 *)(b + i * ldb);
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; j++) {
      r[i + j] = __builtin_shufflevector(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      r[i + j + 2] = __builtin_shufflevector(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; i++) {
    *(v8 *)(out + i * ld_out) = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    *(v8 *)(out + (i + 4) * ld_out) =
        __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

// out (columns, rows) with row distance `ld_out` = transpose of b (rows, columns).
static void transpose(ptrdiff_t rows, ptrdiff_t columns, const float *b, ptrdiff_t ldb, float *out,
                      ptrdiff_t ld_out) {
  ptrdiff_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (ptrdiff_t i = 0; i < whole_rows; i += 8) {
    for (ptrdiff_t p = 0; p < whole_columns; p += 8)
      transpose_8x8(b + i * ldb + p, ldb, out + p * ld_out + i, ld_out);
    for (ptrdiff_t p = whole_columns; p < columns; p++)
      for (int l = 0; l < 8; l++) out[p * ld_out + i + l] = b[(i + l) * ldb + p];
  }
  for (ptrdiff_t i = whole_rows; i < rows; i++)
    for (ptrdiff_t p = 0; p < columns; p++) out[p * ld_out + i] = b[i * ldb + p];
}

// Packs `k` products × `columns` columns of B as one panel (k, width); missing columns are zero.
// b points at the first product and column.
static void pack(int width, ptrdiff_t k, ptrdiff_t columns, const float *b, ptrdiff_t ldb,
                 int transposed, float *panel) {
  if (columns < width) memset(panel, 0, sizeof(float) * (size_t)(k * width));
  if (transposed) {
    transpose(columns, k, b, ldb, panel, width);
  } else if (columns == width) {
    for (ptrdiff_t p = 0; p < k; p++) {
      const v8 *from = (const v8 *)(b + p * ldb);
      v8 *to = (v8 *)(panel + p * width);
      for (int l = 0; l < width / 8; l++) to[l] = from[l];
    }
  } else {
    for (ptrdiff_t p = 0; p < k; p++)
      memcpy(panel + p * width, b + p * ldb, sizeof(float) * (size_t)columns);
  }
}

// C (m, columns) (+)= A (m, k) · panel (k, width), rows split evenly into tiles.
INLINE void multiply_panel(const Kernel *kernel, ptrdiff_t m, ptrdiff_t k, const float *a,
                           ptrdiff_t lda, const float *panel, float *c, ptrdiff_t ldc,
                           ptrdiff_t columns, int first) {
  ptrdiff_t tiles = (m + kernel->rows - 1) / kernel->rows, row = 0;
  for (ptrdiff_t tile = 0; tile < tiles; tile++) {
    ptrdiff_t rows = (m - row + tiles - tile - 1) / (tiles - tile);
    kernel->run((int)rows, k, a + row * lda, lda, panel, c + row * ldc, ldc, columns, first);
    row += rows;
  }
}

static void multiply(const Kernel *kern, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                     ptrdiff_t lda, int a_transposed, const float *b, ptrdiff_t ldb,
                     int b_transposed, float *c, ptrdiff_t ldc, int accumulate, float *scratch) {
  const int width = kern->width;
  float *panels = scratch, *rows_of_a = scratch + TK_GEMM_CHAIN * TK_GEMM_COLUMNS;
  for (ptrdiff_t j = 0; j < n; j += TK_GEMM_COLUMNS) {
    ptrdiff_t block = MIN(n - j, TK_GEMM_COLUMNS);
    for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN) {
      ptrdiff_t chain = MIN(k - p, TK_GEMM_CHAIN);
      int first = p == 0 && !accumulate;
      for (ptrdiff_t q = 0; q < block; q += width)
        pack(width, chain, MIN(block - q, width),
             b_transposed ? b + (j + q) * ldb + p : b + p * ldb + j + q, ldb, b_transposed,
             panels + q * chain);
      // A strip of A is short enough to stay in the first-level cache for all panels.
      ptrdiff_t strip = a_transposed ? TK_GEMM_ROWS : kern->rows;
      for (ptrdiff_t i = 0; i < m; i += strip) {
        ptrdiff_t rows = MIN(m - i, strip);
        const float *from = a + i * lda + p;
        ptrdiff_t distance = lda;
        if (a_transposed) {
          transpose(chain, rows, a + p * lda + i, lda, rows_of_a, chain);
          from = rows_of_a;
          distance = chain;
        }
        for (ptrdiff_t q = 0; q < block; q += width)
          multiply_panel(kern, rows, chain, from, distance, panels + q * chain, c + i * ldc + j + q,
                         ldc, MIN(block - q, width), first);
      }
    }
  }
}

void tk_gemm(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
             int a_transposed, const float *b, ptrdiff_t ldb, int b_transposed, float *c,
             ptrdiff_t ldc, int accumulate, float *scratch) {
  multiply(kernel(), m, n, k, a, lda, a_transposed, b, ldb, b_transposed, c, ldc, accumulate,
           scratch);
}

void tk_gemm_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    int a_transposed, const float *b, ptrdiff_t ldb, int b_transposed, float *c,
                    ptrdiff_t ldc, int accumulate, float *scratch) {
  multiply(&narrow, m, n, k, a, lda, a_transposed, b, ldb, b_transposed, c, ldc, accumulate,
           scratch);
}

void tk_pack_panel(ptrdiff_t panel, ptrdiff_t n, ptrdiff_t k, const float *b, ptrdiff_t ldb,
                   float *packed) {
  const int width = kernel()->width;
  ptrdiff_t j = panel * width;
  pack(width, k, MIN(n - j, width), b + j * ldb, ldb, 1, packed + j * k);
}

void tk_gemm_packed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    const float *packed, ptrdiff_t panel_begin, ptrdiff_t panel_end, float *c,
                    ptrdiff_t ldc, int accumulate) {
  const Kernel *kern = kernel();
  const int width = kern->width;
  for (ptrdiff_t panel = panel_begin; panel < panel_end; panel++) {
    ptrdiff_t j = panel * width;
    for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN)
      multiply_panel(kern, m, MIN(k - p, TK_GEMM_CHAIN), a + p, lda, packed + j * k + p * width,
                     c + j, ldc, MIN(n - j, width), p == 0 && !accumulate);
  }
}

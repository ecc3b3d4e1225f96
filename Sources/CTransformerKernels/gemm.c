// Matrix multiplication for one row up to thousands, on one thread.
//
// Structure after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008):
// a block of B is packed into panels that stay in the second-level cache, and a micro-kernel keeps
// a tile of C in registers while it runs along k. Rows of A are read in place. Unlike in a BLAS, no
// path changes the order of additions of an element (see TK_GEMM_CHAIN), whatever the shape.

#include "gemm.h"

#include <string.h>

// Rows of the largest register tile.
enum { MAX_ROWS = 12 };

// One register tile: `rows` rows of C × `vectors` (1 or 2) vectors, over one chain of `k` products.
// `rows` and `vectors` are constants once inlined, so the sums live in registers. Element (i, p) of A
// is a[i · row_step + p · product_step]. b: rows of two vectors, `ldb` apart. Columns from `columns` on
// are not stored. `first`: see TILE_CONTINUES. UNROLL products follow each other without a jump: with
// addresses to be worked out for each product, threads that share a core wait for instructions, and not
// for multiplications (8 of them are too many for the processor's buffer, and far slower).
#define DEFINE_TILE(NAME, VECTOR, LANES, TARGET, UNROLL)                                           \
  TARGET INLINE void NAME##_tile(const int rows, const int vectors, ptrdiff_t k, const float *a,   \
                                 ptrdiff_t row_step, const ptrdiff_t product_step,                 \
                                 const float *b, ptrdiff_t ldb, float *c, ptrdiff_t ldc,           \
                                 ptrdiff_t columns, int first) {                                   \
    VECTOR s0[MAX_ROWS], s1[MAX_ROWS];                                                             \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {                            \
      s0[i] = s1[i] = (VECTOR){0};                                                                 \
      if (first == TILE_CONTINUES) {                                                               \
        s0[i] = *(const VECTOR *)(c + i * ldc);                                                    \
        if (vectors == 2) s1[i] = *(const VECTOR *)(c + i * ldc + LANES);                          \
      }                                                                                            \
    }                                                                                              \
    _Pragma(UNROLL) for (ptrdiff_t p = 0; p < k; p++, a += product_step, b += ldb) {               \
      VECTOR b0 = *(const VECTOR *)b;                                                              \
      VECTOR b1 = vectors == 2 ? *(const VECTOR *)(b + LANES) : b0;                                \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {                          \
        VECTOR x = a[i * row_step] - (VECTOR){0};                                                  \
        s0[i] += x * b0;                                                                           \
        if (vectors == 2) s1[i] += x * b1;                                                         \
      }                                                                                            \
    }                                                                                              \
    if (columns == vectors * LANES) {                                                              \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {                          \
        VECTOR *o0 = (VECTOR *)(c + i * ldc), *o1 = (VECTOR *)(c + i * ldc + LANES);               \
        *o0 = first ? s0[i] : *o0 + s0[i];                                                         \
        if (vectors == 2) *o1 = first ? s1[i] : *o1 + s1[i];                                       \
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
  }

// A row of one vector wastes half of a tile of two. Panels have a distance that the compiler knows.
#define TILE_CASE(NAME, LANES, ROWS)                                                               \
  case ROWS:                                                                                       \
    if (!lda)                                                                                      \
      NAME##_tile(ROWS, 2, k, a, 1, ROWS, b, ldb, c, ldc, columns, first);                         \
    else if (columns > LANES && ldb == 2 * LANES)                                                  \
      NAME##_tile(ROWS, 2, k, a, lda, 1, b, 2 * LANES, c, ldc, columns, first);                    \
    else if (columns > LANES)                                                                      \
      NAME##_tile(ROWS, 2, k, a, lda, 1, b, ldb, c, ldc, columns, first);                          \
    else                                                                                           \
      NAME##_tile(ROWS, 1, k, a, lda, 1, b, ldb, c, ldc, columns, first);                          \
    break;

#if defined(__x86_64__)
DEFINE_TILE(avx512, v16, 16, AVX512, "clang loop unroll(disable)")
AVX512 static void avx512_rows(TILE_PARAMETERS) {
  switch (rows) {
    TILE_CASE(avx512, 16, 1)
    TILE_CASE(avx512, 16, 2)
    TILE_CASE(avx512, 16, 3)
    TILE_CASE(avx512, 16, 4)
    TILE_CASE(avx512, 16, 5)
    TILE_CASE(avx512, 16, 6)
    TILE_CASE(avx512, 16, 7)
    TILE_CASE(avx512, 16, 8)
    TILE_CASE(avx512, 16, 9)
    TILE_CASE(avx512, 16, 10)
    TILE_CASE(avx512, 16, 11)
    TILE_CASE(avx512, 16, 12)
  }
}
#endif

// 16 columns as two vectors of 8: 12 + 3 registers of AVX2. On other processors the compiler
// splits the vectors as it must.
DEFINE_TILE(narrow, v8, 8, , "clang loop unroll_count(4)")
static void narrow_rows(TILE_PARAMETERS) {
  switch (rows) {
    TILE_CASE(narrow, 8, 1)
    TILE_CASE(narrow, 8, 2)
    TILE_CASE(narrow, 8, 3)
    TILE_CASE(narrow, 8, 4)
    TILE_CASE(narrow, 8, 5)
    TILE_CASE(narrow, 8, 6)
  }
}

#if defined(__AVX2__) && defined(__FMA__)
static const Kernel narrow = {"avx2", 6, 16, narrow_rows};
#else
static const Kernel narrow = {"generic", 6, 16, narrow_rows};
#endif

const Kernel *tk_narrow_kernel(void) { return &narrow; }

const Kernel *tk_kernel(void) {
#if defined(__x86_64__)
  static const Kernel wide = {"avx512", 12, 32, avx512_rows};
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return &wide;
#endif
  return &narrow;
}

int tk_fuses(void) {
#if defined(__FMA__) || defined(__aarch64__)
  return 1;
#else
  return 0;
#endif
}

const char *tk_gemm_kernel(void) { return tk_kernel()->name; }

ptrdiff_t tk_pack_width(void) { return tk_kernel()->width; }

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

// Sixteen columns at a time, so that lines of `out` are written whole.
void tk_transpose(ptrdiff_t rows, ptrdiff_t columns, const float *b, ptrdiff_t ldb, float *out,
                      ptrdiff_t ld_out) {
  ptrdiff_t whole_rows = rows / 8 * 8, whole_columns = columns / 16 * 16;
  for (ptrdiff_t p = 0; p < whole_columns; p += 16) {
    for (ptrdiff_t i = 0; i < whole_rows; i += 8) {
      for (int l = 0; l < 8; l++) __builtin_prefetch(b + (i + l) * ldb + p + 64);
      transpose_8x8(b + i * ldb + p, ldb, out + p * ld_out + i, ld_out);
      transpose_8x8(b + i * ldb + p + 8, ldb, out + (p + 8) * ld_out + i, ld_out);
    }
  }
  for (ptrdiff_t i = 0; i < whole_rows; i++)
    for (ptrdiff_t p = whole_columns; p < columns; p++) out[p * ld_out + i] = b[i * ldb + p];
  for (ptrdiff_t i = whole_rows; i < rows; i++)
    for (ptrdiff_t p = 0; p < columns; p++) out[p * ld_out + i] = b[i * ldb + p];
}

// Packs `k` products × `columns` columns of B as one panel (k, width); missing columns are zero.
// b points at the first product and column.
static void pack(int width, ptrdiff_t k, ptrdiff_t columns, const float *b, ptrdiff_t ldb,
                 int transposed, float *panel) {
  if (columns < width) memset(panel, 0, sizeof(float) * (size_t)(k * width));
  if (transposed) {
    tk_transpose(columns, k, b, ldb, panel, width);
  } else if (columns == width) {
    for (ptrdiff_t p = 0; p < k; p++) {
      const v8 *from = (const v8 *)(b + p * ldb);
      v8 *to = (v8 *)(panel + p * width);
      for (int l = 0; l < width / 8; l++) {
        __builtin_prefetch(b + (p + 16) * ldb + l * 8);
        to[l] = from[l];
      }
    }
  } else {
    for (ptrdiff_t p = 0; p < k; p++)
      memcpy(panel + p * width, b + p * ldb, sizeof(float) * (size_t)columns);
  }
}

// Strips of a transposed A that are packed together, so that its lines are read whole.
enum { GROUP_STRIPS = 4 };

// Packs columns of a transposed A (k, …) as `count` strips one after the other, each (k, its rows).
static void pack_strips(ptrdiff_t count, const ptrdiff_t *rows, ptrdiff_t k, const float *a,
                        ptrdiff_t lda, float *out) {
  // Few enough products at a time for their lines to stay in the first-level cache, and the lines of
  // the next ones on their way: they are too far apart for the processor to foresee.
  for (ptrdiff_t begin = 0; begin < k; begin += 32) {
    const float *from = a + begin * lda;
    float *strip = out;
    ptrdiff_t end = MIN(begin + 32, k);
    for (ptrdiff_t s = 0; s < count; from += rows[s], strip += k * rows[s], s++) {
      for (ptrdiff_t p = begin; p < end; p++) {
        const float *x = from + (p - begin) * lda;
        float *to = strip + p * rows[s];
        if (s == 0) {
          __builtin_prefetch(x + 32 * lda);
          __builtin_prefetch(x + 32 * lda + 16);
          __builtin_prefetch(x + 32 * lda + 32);
        }
        if (rows[s] == MAX_ROWS)
          memcpy(to, x, sizeof(float) * MAX_ROWS);
        else
          for (ptrdiff_t i = 0; i < rows[s]; i++) to[i] = x[i];
      }
    }
  }
}

void tk_multiply_chain(const Kernel *kern, ptrdiff_t m, ptrdiff_t columns, ptrdiff_t chain,
                       const float *a, ptrdiff_t lda, int a_transposed, float *rows_of_a,
                       const float *panels, ptrdiff_t panel_distance, ptrdiff_t ldb, float *c,
                       ptrdiff_t ldc, int first) {
  // Rows are split evenly into tiles; one strip of A stays in the first-level cache for all panels.
  ptrdiff_t tiles = (m + kern->rows - 1) / kern->rows, i = 0;
  for (ptrdiff_t tile = 0; tile < tiles;) {
    ptrdiff_t rows[GROUP_STRIPS], strips = MIN(tiles - tile, GROUP_STRIPS), next = i;
    for (ptrdiff_t s = 0; s < strips; s++, tile++) {
      rows[s] = (m - next + tiles - tile - 1) / (tiles - tile);
      next += rows[s];
    }
    if (a_transposed) pack_strips(strips, rows, chain, a + i, lda, rows_of_a);
    const float *packed = rows_of_a;
    for (ptrdiff_t s = 0; s < strips; s++) {
      const float *from = a_transposed ? packed : a + i * lda;
      for (ptrdiff_t q = 0; q < columns; q += kern->width)
        kern->run((int)rows[s], chain, from, a_transposed ? 0 : lda,
                  panels + q / kern->width * panel_distance, ldb, c + i * ldc + q, ldc, MIN(columns - q, kern->width), first);
      packed += rows[s] * chain;
      i += rows[s];
    }
  }
}

static void multiply(const Kernel *kern, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                     ptrdiff_t lda, int a_transposed, const float *b, ptrdiff_t ldb,
                     int b_transposed, float *c, ptrdiff_t ldc, int accumulate, float *scratch) {
  const int width = kern->width;
  float *panels = scratch, *rows_of_a = scratch + TK_GEMM_CHAIN * TK_GEMM_COLUMNS;
  // Blocks as equal as panels allow.
  ptrdiff_t blocks = (n + TK_GEMM_COLUMNS - 1) / TK_GEMM_COLUMNS;
  ptrdiff_t columns = ((n + blocks - 1) / blocks + width - 1) / width * width;
  for (ptrdiff_t j = 0; j < n; j += columns) {
    ptrdiff_t block = MIN(n - j, columns);
    // With a strip or two of rows, B is read where it lies, but for a last panel that is not whole.
    ptrdiff_t in_place = !b_transposed && m <= 2 * kern->rows ? block / width * width : 0;
    for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN) {
      ptrdiff_t chain = MIN(k - p, TK_GEMM_CHAIN);
      int first = p == 0 && !accumulate;
      const float *from = a_transposed ? a + p * lda : a + p;
      if (in_place)
        tk_multiply_chain(kern, m, in_place, chain, from, lda, a_transposed, rows_of_a,
                          b + p * ldb + j, width, ldb, c + j, ldc, first);
      if (in_place == block) continue;
      for (ptrdiff_t q = in_place; q < block; q += width)
        pack(width, chain, MIN(block - q, width),
             b_transposed ? b + (j + q) * ldb + p : b + p * ldb + j + q, ldb, b_transposed,
             panels + (q - in_place) * chain);
      tk_multiply_chain(kern, m, block - in_place, chain, from, lda, a_transposed, rows_of_a, panels,
                        width * chain, width, c + j + in_place, ldc, first);
    }
  }
}

void tk_gemm(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
             int a_transposed, const float *b, ptrdiff_t ldb, int b_transposed, float *c,
             ptrdiff_t ldc, int accumulate, float *scratch) {
  multiply(tk_kernel(), m, n, k, a, lda, a_transposed, b, ldb, b_transposed, c, ldc, accumulate,
           scratch);
}

void tk_gemm_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    int a_transposed, const float *b, ptrdiff_t ldb, int b_transposed, float *c,
                    ptrdiff_t ldc, int accumulate, float *scratch) {
  multiply(&narrow, m, n, k, a, lda, a_transposed, b, ldb, b_transposed, c, ldc, accumulate,
           scratch);
}

void tk_gemm_packed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    const float *panels, ptrdiff_t panel_distance, float *c, ptrdiff_t ldc) {
  const Kernel *kern = tk_kernel();
  for (ptrdiff_t j = 0; j < n; j += kern->width, panels += panel_distance)
    for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN)
      tk_multiply_chain(kern, m, MIN(n - j, kern->width), MIN(k - p, TK_GEMM_CHAIN), a + p, lda, 0,
                        NULL, panels + p * kern->width, 0, kern->width, c + j, ldc, p == 0);
}

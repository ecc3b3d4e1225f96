// Products with weights that stay compressed in memory and are expanded in registers.
//
// Decoding reads every weight once for each step, so with few rows its speed is that of the memory.
// Elements expand to the floats that the checkpoint's encoding means, exactly, and are summed in the
// chains of gemm.c: the bits are those of the product with expanded weights.
//
// A panel holds 32 columns; in it, blocks of 32 products (one, for 16-bit floats) follow each other:
//   nibbles:  32 scales, 32 minima; then 4 × 32 words, word (j, column) with the codes of products
//             8j … 8j + 7 from the lowest bits up
//   bytes:    32 scales; then (32 products, 32 columns) codes
//   16 bits:  32 elements

#include "gemm.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { WIDTH = TK_COMPRESSED_WIDTH, BLOCK = TK_COMPRESSED_BLOCK };

// Bytes of one block of a panel, and products in it.
static size_t block_size(tk_encoding encoding) {
  switch (encoding) {
    case TK_NIBBLES: return 2 * 2 * WIDTH + BLOCK * WIDTH / 2;
    case TK_BYTES: return 2 * WIDTH + BLOCK * WIDTH;
    default: return 2 * WIDTH;
  }
}
static ptrdiff_t block_products(tk_encoding encoding) {
  return encoding == TK_NIBBLES || encoding == TK_BYTES ? BLOCK : 1;
}

size_t tk_compressed_panel_size(tk_encoding encoding, ptrdiff_t k) {
  return (size_t)(k / block_products(encoding)) * block_size(encoding);
}

void tk_compress_panel(tk_encoding encoding, ptrdiff_t k, ptrdiff_t columns, const void *codes,
                       ptrdiff_t ld, const uint16_t *scales, const uint16_t *minima,
                       ptrdiff_t ld_scales, void *panel) {
  const uint8_t *bytes = codes;
  const uint16_t *halves = codes;
  memset(panel, 0, tk_compressed_panel_size(encoding, k));
  for (ptrdiff_t column = 0; column < columns; column++) {
    uint8_t *out = panel;
    ptrdiff_t step = block_products(encoding);
    for (ptrdiff_t p = 0; p < k; p += step, out += block_size(encoding)) {
      uint16_t *head = (uint16_t *)out;
      if (encoding == TK_FLOAT16 || encoding == TK_BFLOAT16) {
        head[column] = halves[column * ld + p];
        continue;
      }
      const uint8_t *from = bytes + column * ld + p;
      head[column] = scales[column * ld_scales + p / BLOCK];
      if (encoding == TK_NIBBLES) {
        head[WIDTH + column] = minima[column * ld_scales + p / BLOCK];
        uint32_t *words = (uint32_t *)(head + 2 * WIDTH);
        for (int i = 0; i < BLOCK; i++)
          words[i / 8 * WIDTH + column] |= (uint32_t)(from[i] & 15) << 4 * (i % 8);
      } else {
        for (int i = 0; i < BLOCK; i++) ((uint8_t *)(head + WIDTH))[i * WIDTH + column] = from[i];
      }
    }
  }
}

// One chain of products for columns `column`... of a panel.
#define ROWS_PARAMETERS                                                                            \
  int rows, tk_encoding encoding, ptrdiff_t k, const uint8_t *panel, size_t distance,              \
      ptrdiff_t column, const float *a, ptrdiff_t lda, float *c, ptrdiff_t ldc, ptrdiff_t columns, int first
#define EXPAND_PARAMETERS                                                                          \
  tk_encoding encoding, ptrdiff_t k, const uint8_t *panel, ptrdiff_t column, float *out

typedef struct {
  // Most rows whose sums stay in registers beside the expansion; most of those that take two panels
  // at a time.
  int direct_rows, paired_rows;
  // C (rows, columns) = (or +=, unless `first`) A (rows, k) · the columns of a panel, or of two that
  // are `distance` bytes apart.
  void (*run)(ROWS_PARAMETERS);
  // The panel's columns as a panel (k, width of the tile) of floats.
  void (*expand)(EXPAND_PARAMETERS);
} CompressedKernel;

#if defined(__x86_64__)
#define NAME(SUFFIX) avx512_##SUFFIX
#define TARGET AVX512
#define LANES 16
#define DIRECT_ROWS 8
#define FEW_ROWS_VECTORS 4
// A permutation looks at the four lowest bits of each word: it is the conversion to floats.
AVX512 INLINE v16 avx512_nibbles(__m512i codes, int position) {
  const v16 numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return (v16)_mm512_permutexvar_ps(_mm512_srli_epi32(codes, (unsigned)(4 * position)),
                                    (__m512)numbers);
}
#define NIBBLES(CODES, POSITION) avx512_nibbles((__m512i)(CODES), POSITION)
#include "compressed_kernel.h"
#endif

#define NAME(SUFFIX) narrow_##SUFFIX
#define TARGET
#define LANES 8
#define DIRECT_ROWS 2
#define FEW_ROWS_VECTORS 2
#define NIBBLES(CODES, POSITION)                                                                   \
  __builtin_convertvector((NAME(signed))((CODES) >> (4 * (POSITION)) & 15), NAME(vector))
#include "compressed_kernel.h"

void tk_expand_panel(tk_encoding encoding, ptrdiff_t k, const void *panel, float *out) {
  // Slices of 16 columns, put side by side.
  for (ptrdiff_t p = 0; p < k; p += block_products(encoding)) {
    float slice[BLOCK * 16];
    const uint8_t *block =
        (const uint8_t *)panel + tk_compressed_panel_size(encoding, p);
    for (ptrdiff_t column = 0; column < WIDTH; column += 16) {
      narrow_expand(encoding, block_products(encoding), block, column, slice);
      for (ptrdiff_t i = 0; i < block_products(encoding); i++)
        memcpy(out + (p + i) * WIDTH + column, slice + i * 16, sizeof(float) * 16);
    }
  }
}

// Rows up to which expanding costs about as much as multiplying does, and products of a panel that are
// then expanded at a time: they and the rows stay in the first-level cache.
enum { FEW_ROWS = 48, FEW_PRODUCTS = 192 };

// The product for few rows. A chain is cut in pieces, its sums are kept aside between them.
static void multiply_few(const Kernel *tile, const CompressedKernel *kern, ptrdiff_t m, ptrdiff_t n,
                         ptrdiff_t k, const float *a, ptrdiff_t lda, tk_encoding encoding,
                         const uint8_t *panels, size_t panel_size, float *c, ptrdiff_t ldc,
                         int accumulate, float *scratch) {
  const int width = tile->width;
  float *sums = scratch + FEW_PRODUCTS * width;
  for (ptrdiff_t j = 0; j < n; j += width) {
    ptrdiff_t columns = MIN(n - j, width);
    const uint8_t *panel = panels + (size_t)(j / WIDTH) * panel_size;
    for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN) {
      ptrdiff_t chain = MIN(k - p, TK_GEMM_CHAIN);
      for (ptrdiff_t s = 0; s < chain; s += FEW_PRODUCTS) {
        ptrdiff_t products = MIN(chain - s, FEW_PRODUCTS);
        kern->expand(encoding, products, panel + tk_compressed_panel_size(encoding, p + s),
                     j % WIDTH, scratch);
        tk_multiply_chain(tile, m, width, products, a + p + s, lda, 0, NULL, scratch, 0, width, sums,
                          width, s == 0 ? TILE_REPLACES : TILE_CONTINUES);
      }
      for (ptrdiff_t i = 0; i < m; i++) {
        float *to = c + i * ldc + j;
        const float *from = sums + i * width;
        if (p == 0 && !accumulate)
          memcpy(to, from, sizeof(float) * (size_t)columns);
        else
          for (ptrdiff_t q = 0; q < columns; q++) to[q] += from[q];
      }
    }
  }
}

// `tile` multiplies with expanded panels.
static void multiply(const Kernel *tile, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                     const float *a, ptrdiff_t lda, tk_encoding encoding, const uint8_t *panels,
                     float *c, ptrdiff_t ldc, int accumulate, float *scratch) {
#if defined(__x86_64__)
  const CompressedKernel kern = tile == tk_narrow_kernel() ? narrow_kernel : avx512_kernel;
#else
  const CompressedKernel kern = narrow_kernel;
#endif
  const int width = tile->width;
  const size_t panel_size = tk_compressed_panel_size(encoding, k);
  if (m > kern.direct_rows && m <= FEW_ROWS) {
    multiply_few(tile, &kern, m, n, k, a, lda, encoding, panels, panel_size, c, ldc, accumulate,
                 scratch);
    return;
  }
  // With the fewest rows, one panel after the other runs through the registers; with many, as many as
  // the second-level cache holds are expanded to memory.
  const ptrdiff_t block = m > kern.direct_rows   ? TK_GEMM_COLUMNS
                          : m > kern.paired_rows ? width
                                                 : 2 * width;
  for (ptrdiff_t j = 0; j < n; j += block) {
    ptrdiff_t columns = MIN(n - j, block);
    for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN) {
      ptrdiff_t chain = MIN(k - p, TK_GEMM_CHAIN);
      const size_t skipped = tk_compressed_panel_size(encoding, p);
      int first = p == 0 && !accumulate;
      if (m <= kern.direct_rows) {
        kern.run((int)m, encoding, chain, panels + (size_t)(j / WIDTH) * panel_size + skipped,
                 columns > WIDTH ? panel_size : 0, j % WIDTH, a + p, lda, c + j, ldc, columns, first);
        continue;
      }
      for (ptrdiff_t q = 0; q < columns; q += width)
        kern.expand(encoding, chain, panels + (size_t)((j + q) / WIDTH) * panel_size + skipped,
                    (j + q) % WIDTH, scratch + q * chain);
      tk_multiply_chain(tile, m, columns, chain, a + p, lda, 0, NULL, scratch, width * chain,
                        width, c + j, ldc, first);
    }
  }
}

// Expands the elements of up to 32 × 32 products × columns to panels of the transposed matrix: `block`
// is where column 0 of the stored panel's row 0 begins; element (product r, column c) goes to
// panels[c / width · distance + r · width + c % width].
static void expand_transposed(const CompressedKernel *kern, int width, tk_encoding encoding,
                              ptrdiff_t products, ptrdiff_t columns, const uint8_t *block,
                              float *panels, ptrdiff_t distance) {
  float slice[BLOCK * WIDTH];
  for (ptrdiff_t r = 0; r < products; r += width) {
    kern->expand(encoding, columns, block, r, slice);
    for (ptrdiff_t c = 0; c < columns; c += width)
      tk_transpose(MIN(columns - c, width), MIN(products - r, width), slice + c * width, width,
                   panels + c / width * distance + r * width, width);
  }
}

static void multiply_transposed(const Kernel *tile, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                                const float *a, ptrdiff_t lda, tk_encoding encoding,
                                const uint8_t *panels, ptrdiff_t panel_columns, float *c,
                                ptrdiff_t ldc, float *scratch) {
#if defined(__x86_64__)
  const CompressedKernel kern = tile == tk_narrow_kernel() ? narrow_kernel : avx512_kernel;
#else
  const CompressedKernel kern = narrow_kernel;
#endif
  const int width = tile->width;
  const size_t panel_size = tk_compressed_panel_size(encoding, panel_columns);
  ptrdiff_t blocks = (n + TK_GEMM_COLUMNS - 1) / TK_GEMM_COLUMNS;
  ptrdiff_t most = ((n + blocks - 1) / blocks + WIDTH - 1) / WIDTH * WIDTH;
  const size_t prefetched = tk_compressed_panel_size(encoding, BLOCK);
  // Chains outside: the rows' part of a chain stays in the second-level cache for all columns, and the
  // panels are read as they lie.
  for (ptrdiff_t p = 0; p < k; p += TK_GEMM_CHAIN) {
    ptrdiff_t chain = MIN(k - p, TK_GEMM_CHAIN), distance = width * chain;
    for (ptrdiff_t j = 0; j < n; j += most) {
      ptrdiff_t columns = MIN(n - j, most);
      // Columns beyond the last are computed with what stands there, and not stored.
      if (columns % width)
        memset(scratch + columns / width * distance, 0, sizeof(float) * (size_t)distance);
      for (ptrdiff_t r = 0; r < chain; r += WIDTH) {
        const uint8_t *panel = panels + (size_t)((p + r) / WIDTH) * panel_size;
        for (ptrdiff_t q = 0; q < columns; q += BLOCK) {
          const uint8_t *block = panel + tk_compressed_panel_size(encoding, j + q);
          // The same block of the next panel: too far away for the processor to foresee.
          for (size_t line = 0; line < prefetched; line += 64)
            __builtin_prefetch(block + panel_size + line);
          expand_transposed(&kern, width, encoding, MIN(chain - r, WIDTH), MIN(columns - q, BLOCK),
                            block, scratch + q / width * distance + r * width, distance);
        }
      }
      tk_multiply_chain(tile, m, columns, chain, a + p, lda, 0, NULL, scratch, distance, width,
                        c + j, ldc, p == 0);
    }
  }
}

void tk_gemm_compressed_transposed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                                   ptrdiff_t lda, tk_encoding encoding, const void *panels,
                                   ptrdiff_t panel_columns, float *c, ptrdiff_t ldc,
                                   float *scratch) {
  multiply_transposed(tk_kernel(), m, n, k, a, lda, encoding, panels, panel_columns, c, ldc,
                      scratch);
}

void tk_gemm_compressed_transposed_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                                          ptrdiff_t lda, tk_encoding encoding, const void *panels,
                                          ptrdiff_t panel_columns, float *c, ptrdiff_t ldc,
                                          float *scratch) {
  multiply_transposed(tk_narrow_kernel(), m, n, k, a, lda, encoding, panels, panel_columns, c, ldc,
                      scratch);
}

void tk_gemm_compressed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                        tk_encoding encoding, const void *panels, float *c, ptrdiff_t ldc,
                        int accumulate, float *scratch) {
  multiply(tk_kernel(), m, n, k, a, lda, encoding, panels, c, ldc, accumulate,
           scratch);
}

void tk_gemm_compressed_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                               ptrdiff_t lda, tk_encoding encoding, const void *panels, float *c,
                               ptrdiff_t ldc, int accumulate, float *scratch) {
  multiply(tk_narrow_kernel(), m, n, k, a, lda, encoding, panels, c, ldc,
           accumulate, scratch);
}

// The loops of compressed.c for one vector width, included once for each:
// NAME(suffix) names what is defined here, TARGET its instruction set, LANES the floats of a vector,
// DIRECT_ROWS the most rows whose sums stay in registers, FEW_ROWS_VECTORS the vectors that one or two
// rows take at a time; NIBBLES(codes, position) are nibbles `position` of words as floats. Everything
// is inlined with constant rows and encoding.

typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t NAME(signed) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t NAME(bytes) __attribute__((vector_size(LANES), aligned(1)));
typedef uint16_t NAME(bits) __attribute__((vector_size(2 * LANES), aligned(2)));
typedef _Float16 NAME(halves) __attribute__((vector_size(2 * LANES), aligned(2)));

TARGET INLINE NAME(vector) NAME(load_halves)(const uint16_t *p) {
  return __builtin_convertvector(*(const NAME(halves) *)p, NAME(vector));
}

#define EACH(I, COUNT) _Pragma("clang loop unroll(full)") for (int I = 0; I < (COUNT); I++)

// What happens to the elements of one product: with `rows`, its multiples with column `product` of
// A are added to the sums, without, it is stored to `out`.
TARGET INLINE void NAME(take)(const int rows, const int vectors, ptrdiff_t product,
                              const NAME(vector) *w, const float *a, ptrdiff_t lda,
                              NAME(vector) s[][4], float *out) {
  if (rows == 0)
    EACH(v, vectors) *(NAME(vector) *)(out + (product * vectors + v) * LANES) = w[v];
  EACH(i, rows) {
    NAME(vector) x = a[i * lda + product] - (NAME(vector)){0};
    EACH(v, vectors) s[i][v] += x * w[v];
  }
}

// One block of a panel, or with 4 vectors of two panels that are `distance` bytes apart.
TARGET INLINE void NAME(block)(const int rows, const int vectors, const tk_encoding encoding,
                               const uint8_t *block, size_t distance, ptrdiff_t column,
                               const float *a, ptrdiff_t lda, NAME(vector) s[][4], float *out) {
  const uint8_t *blocks[4];
  NAME(vector) w[4], d[4], m[4];
  EACH(v, vectors) blocks[v] = block + (size_t)(v / 2) * distance;
  if (encoding == TK_NIBBLES) {
    NAME(words) codes[4];
    EACH(v, vectors) {
      const uint16_t *head = (const uint16_t *)blocks[v] + column + v % 2 * LANES;
      d[v] = NAME(load_halves)(head);
      m[v] = NAME(load_halves)(head + WIDTH);
    }
    for (int j = 0; j < BLOCK; j += 8) {
      EACH(v, vectors)
        codes[v] = *(const NAME(words) *)((const uint32_t *)(blocks[v] + 4 * WIDTH) + j / 8 * WIDTH +
                                          column + v % 2 * LANES);
      EACH(l, 8) {
        // Code times scale is exact, so an element is rounded once, fused or not.
        EACH(v, vectors) w[v] = NIBBLES(codes[v], l) * d[v] + m[v];
        NAME(take)(rows, vectors, j + l, w, a, lda, s, out);
      }
    }
  } else if (encoding == TK_BYTES) {
    EACH(v, vectors)
      d[v] = NAME(load_halves)((const uint16_t *)blocks[v] + column + v % 2 * LANES);
    _Pragma("clang loop unroll_count(8)") for (int p = 0; p < BLOCK; p++) {
      EACH(v, vectors)
        w[v] = d[v] * __builtin_convertvector(
                          *(const NAME(bytes) *)(blocks[v] + 2 * WIDTH + p * WIDTH + column +
                                                 v % 2 * LANES), NAME(vector));
      NAME(take)(rows, vectors, p, w, a, lda, s, out);
    }
  } else {
    EACH(v, vectors) {
      const uint16_t *head = (const uint16_t *)blocks[v] + column + v % 2 * LANES;
      w[v] = encoding == TK_FLOAT16
                 ? NAME(load_halves)(head)
                 : (NAME(vector))(__builtin_convertvector(*(const NAME(bits) *)head, NAME(words))
                                  << 16);
    }
    NAME(take)(rows, vectors, 0, w, a, lda, s, out);
  }
}

TARGET INLINE void NAME(chain)(const int rows, const int vectors, const tk_encoding encoding,
                               ptrdiff_t k, const uint8_t *panel, size_t distance,
                               ptrdiff_t column, const float *a, ptrdiff_t lda, float *c,
                               ptrdiff_t ldc, ptrdiff_t columns, int first, float *out) {
  NAME(vector) s[DIRECT_ROWS][4];
  EACH(i, rows) EACH(v, vectors) s[i][v] = (NAME(vector)){0};
  for (ptrdiff_t p = 0; p < k; p += block_products(encoding), panel += block_size(encoding)) {
    NAME(block)(rows, vectors, encoding, panel, distance, column, a, lda, s, out);
    if (rows)
      a += block_products(encoding);
    else
      out += block_products(encoding) * vectors * LANES;
  }
  EACH(i, rows) {
    float *to = c + i * ldc;
    if (columns >= vectors * LANES) {
      EACH(v, vectors) {
        NAME(vector) *t = (NAME(vector) *)(to + v * LANES);
        *t = first ? s[i][v] : *t + s[i][v];
      }
    } else {
      float row[4 * LANES];
      EACH(v, vectors) *(NAME(vector) *)(row + v * LANES) = s[i][v];
      for (ptrdiff_t j = 0; j < columns; j++) to[j] = first ? row[j] : to[j] + row[j];
    }
  }
}

#define ENCODING_CASE(ENCODING, ROWS, VECTORS, C, FIRST, OUT)                                      \
  case ENCODING:                                                                                   \
    NAME(chain)(ROWS, VECTORS, ENCODING, k, panel, distance, column, a, lda, C, ldc, columns, FIRST, \
                OUT);                                                                              \
    break;
#define ENCODING_CASES(ROWS, VECTORS, C, FIRST, OUT)                                               \
  switch (encoding) {                                                                              \
    ENCODING_CASE(TK_NIBBLES, ROWS, VECTORS, C, FIRST, OUT)                                        \
    ENCODING_CASE(TK_BYTES, ROWS, VECTORS, C, FIRST, OUT)                                          \
    ENCODING_CASE(TK_FLOAT16, ROWS, VECTORS, C, FIRST, OUT)                                        \
    ENCODING_CASE(TK_BFLOAT16, ROWS, VECTORS, C, FIRST, OUT)                                       \
  }

TARGET static void NAME(expand)(EXPAND_PARAMETERS) {
  const float *a = NULL;
  const ptrdiff_t lda = 0, ldc = 0, columns = 0;
  const size_t distance = 0;
  ENCODING_CASES(0, 2, NULL, 0, out)
}

// Few rows take two panels at a time: with less than four sums, their latency would be waited for.
#define ROWS_CASE(ROWS, VECTORS)                                                                   \
  case ROWS:                                                                                       \
    ENCODING_CASES(ROWS, VECTORS, c, first, NULL)                                                  \
    break;

TARGET static void NAME(rows)(ROWS_PARAMETERS) {
  switch (rows) {
    ROWS_CASE(1, FEW_ROWS_VECTORS)
    ROWS_CASE(2, FEW_ROWS_VECTORS)
#if DIRECT_ROWS >= 8
    ROWS_CASE(3, 2)
    ROWS_CASE(4, 2)
    ROWS_CASE(5, 2)
    ROWS_CASE(6, 2)
    ROWS_CASE(7, 2)
    ROWS_CASE(8, 2)
#endif
  }
}

static const CompressedKernel NAME(kernel) = {DIRECT_ROWS, FEW_ROWS_VECTORS > 2 ? 2 : 0, NAME(rows),
                                              NAME(expand)};

#undef EACH
#undef ENCODING_CASE
#undef FEW_ROWS_VECTORS
#undef ENCODING_CASES
#undef ROWS_CASE
#undef NAME
#undef TARGET
#undef LANES
#undef DIRECT_ROWS
#undef NIBBLES

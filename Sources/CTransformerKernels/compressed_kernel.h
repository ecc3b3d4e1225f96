// The loops of compressed.c for one vector width, included once for each:
// NAME(suffix) names what is defined here, TARGET its instruction set, LANES the floats of a vector,
// DIRECT_ROWS the most rows of `run`; NIBBLES(codes, position) are nibbles `position` of words as
// floats. Everything is inlined with constant rows and encoding.

typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t NAME(signed) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int8_t NAME(bytes) __attribute__((vector_size(LANES), aligned(1)));
typedef uint16_t NAME(bits) __attribute__((vector_size(2 * LANES), aligned(2)));
typedef _Float16 NAME(halves) __attribute__((vector_size(2 * LANES), aligned(2)));

TARGET INLINE NAME(vector) NAME(load_halves)(const uint16_t *p) {
  return __builtin_convertvector(*(const NAME(halves) *)p, NAME(vector));
}

// What happens to the elements of one product: with `rows`, its multiples with column `product` of
// A are added to the sums, without, it is stored to `out`.
TARGET INLINE void NAME(take)(const int rows, ptrdiff_t product, NAME(vector) w0,
                              NAME(vector) w1, const float *a, ptrdiff_t lda, NAME(vector) s[][2],
                              float *out) {
  if (rows == 0) {
    *(NAME(vector) *)(out + product * 2 * LANES) = w0;
    *(NAME(vector) *)(out + product * 2 * LANES + LANES) = w1;
  }
  _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {
    NAME(vector) x = a[i * lda + product] - (NAME(vector)){0};
    s[i][0] += x * w0;
    s[i][1] += x * w1;
  }
}

// One block of a panel.
TARGET INLINE void NAME(block)(const int rows, const tk_encoding encoding, const uint8_t *block,
                               ptrdiff_t column, const float *a, ptrdiff_t lda,
                               NAME(vector) s[][2], float *out) {
  const uint16_t *head = (const uint16_t *)block + column;
  if (encoding == TK_NIBBLES) {
    const NAME(vector) d0 = NAME(load_halves)(head), d1 = NAME(load_halves)(head + LANES),
                       m0 = NAME(load_halves)(head + WIDTH),
                       m1 = NAME(load_halves)(head + WIDTH + LANES);
    const uint32_t *words = (const uint32_t *)(block + 4 * WIDTH) + column;
    for (int j = 0; j < BLOCK; j += 8, words += WIDTH) {
      NAME(words) c0 = *(const NAME(words) *)words, c1 = *(const NAME(words) *)(words + LANES);
      // Code times scale is exact, so an element is rounded once, fused or not.
      _Pragma("clang loop unroll(full)") for (int l = 0; l < 8; l++)
          NAME(take)(rows, j + l, NIBBLES(c0, l) * d0 + m0, NIBBLES(c1, l) * d1 + m1, a, lda, s,
                     out);
    }
  } else if (encoding == TK_BYTES) {
    const NAME(vector) d0 = NAME(load_halves)(head), d1 = NAME(load_halves)(head + LANES);
    const uint8_t *codes = block + 2 * WIDTH + column;
    _Pragma("clang loop unroll_count(8)") for (int p = 0; p < BLOCK; p++, codes += WIDTH)
        NAME(take)(rows, p,
                   __builtin_convertvector(*(const NAME(bytes) *)codes, NAME(vector)) * d0,
                   __builtin_convertvector(*(const NAME(bytes) *)(codes + LANES), NAME(vector)) *
                       d1,
                   a, lda, s, out);
  } else if (encoding == TK_FLOAT16) {
    NAME(take)(rows, 0, NAME(load_halves)(head), NAME(load_halves)(head + LANES), a, lda, s, out);
  } else {
    NAME(words) w0 = __builtin_convertvector(*(const NAME(bits) *)head, NAME(words)) << 16,
                w1 = __builtin_convertvector(*(const NAME(bits) *)(head + LANES), NAME(words)) << 16;
    NAME(take)(rows, 0, (NAME(vector))w0, (NAME(vector))w1, a, lda, s, out);
  }
}

TARGET INLINE void NAME(chain)(const int rows, const tk_encoding encoding, ptrdiff_t k,
                               const uint8_t *panel, ptrdiff_t column, const float *a,
                               ptrdiff_t lda, float *c, ptrdiff_t ldc, ptrdiff_t columns,
                               int first, float *out) {
  NAME(vector) s[DIRECT_ROWS][2];
  for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = (NAME(vector)){0};
  for (ptrdiff_t p = 0; p < k; p += block_products(encoding), panel += block_size(encoding)) {
    NAME(block)(rows, encoding, panel, column, a, lda, s, out);
    if (rows)
      a += block_products(encoding);
    else
      out += block_products(encoding) * 2 * LANES;
  }
  _Pragma("clang loop unroll(full)") for (int i = 0; i < rows; i++) {
    float *to = c + i * ldc;
    if (columns >= 2 * LANES) {
      NAME(vector) *t0 = (NAME(vector) *)to, *t1 = (NAME(vector) *)(to + LANES);
      *t0 = first ? s[i][0] : *t0 + s[i][0];
      *t1 = first ? s[i][1] : *t1 + s[i][1];
    } else {
      float row[2 * LANES];
      *(NAME(vector) *)row = s[i][0];
      *(NAME(vector) *)(row + LANES) = s[i][1];
      for (ptrdiff_t j = 0; j < columns; j++) to[j] = first ? row[j] : to[j] + row[j];
    }
  }
}

#define ENCODING_CASES(ROWS, C, FIRST, OUT)                                                        \
  switch (encoding) {                                                                              \
    case TK_NIBBLES:                                                                               \
      NAME(chain)(ROWS, TK_NIBBLES, k, panel, column, a, lda, C, ldc, columns, FIRST, OUT);        \
      break;                                                                                       \
    case TK_BYTES:                                                                                 \
      NAME(chain)(ROWS, TK_BYTES, k, panel, column, a, lda, C, ldc, columns, FIRST, OUT);          \
      break;                                                                                       \
    case TK_FLOAT16:                                                                               \
      NAME(chain)(ROWS, TK_FLOAT16, k, panel, column, a, lda, C, ldc, columns, FIRST, OUT);        \
      break;                                                                                       \
    case TK_BFLOAT16:                                                                              \
      NAME(chain)(ROWS, TK_BFLOAT16, k, panel, column, a, lda, C, ldc, columns, FIRST, OUT);       \
      break;                                                                                       \
  }

TARGET static void NAME(expand)(EXPAND_PARAMETERS) {
  const float *a = NULL;
  const ptrdiff_t lda = 0, ldc = 0, columns = 0;
  ENCODING_CASES(0, NULL, 0, out)
}

#define ROWS_CASE(ROWS)                                                                            \
  case ROWS:                                                                                       \
    ENCODING_CASES(ROWS, c, first, NULL)                                                           \
    break;

TARGET static void NAME(rows)(ROWS_PARAMETERS) {
  switch (rows) {
    ROWS_CASE(1)
    ROWS_CASE(2)
#if DIRECT_ROWS >= 8
    ROWS_CASE(3)
    ROWS_CASE(4)
    ROWS_CASE(5)
    ROWS_CASE(6)
    ROWS_CASE(7)
    ROWS_CASE(8)
#endif
  }
}

#undef ENCODING_CASES
#undef ROWS_CASE
#undef NAME
#undef TARGET
#undef LANES
#undef DIRECT_ROWS
#undef NIBBLES

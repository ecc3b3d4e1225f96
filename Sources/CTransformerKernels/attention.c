// Causal attention of one head of one sequence, in blocks of query rows.

#include "CTransformerKernels.h"

#define MIN(x, y) ((x) < (y) ? (x) : (y))

ptrdiff_t tk_attention_scratch(ptrdiff_t keys) {
  return TK_GEMM_SCRATCH + 2 * TK_ATTENTION_ROWS * keys + 16;
}

void tk_attention(ptrdiff_t queries, ptrdiff_t past, ptrdiff_t width, float factor, const float *q,
                  ptrdiff_t ldq, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv,
                  float *out, ptrdiff_t ldo, float *scratch) {
  float *p = scratch + TK_GEMM_SCRATCH;
  for (ptrdiff_t i = 0; i < queries; i += TK_ATTENTION_ROWS) {
    ptrdiff_t rows = MIN(queries - i, TK_ATTENTION_ROWS), keys = past + i + rows;
    tk_gemm(rows, keys, width, q + i * ldq, ldq, 0, k, ldk, 1, p, keys, 0, scratch);
    tk_causal_softmax(rows, keys, past + i + 1, factor, p, keys);
    tk_gemm(rows, width, keys, p, keys, 0, v, ldv, 0, out + i * ldo, ldo, 0, scratch);
  }
}

void tk_attention_backward(ptrdiff_t rows, ptrdiff_t width, float factor, const float *q,
                           const float *k, const float *v, ptrdiff_t ld, const float *dout,
                           ptrdiff_t ldo, float *dq, float *dk, float *dv, ptrdiff_t ldg,
                           float *scratch) {
  float *p = scratch + TK_GEMM_SCRATCH, *dp = p + TK_ATTENTION_ROWS * rows;
  for (ptrdiff_t i = 0; i < rows; i += TK_ATTENTION_ROWS) {
    ptrdiff_t block = MIN(rows - i, TK_ATTENTION_ROWS), keys = i + block;
    const float *q_block = q + i * ld, *dout_block = dout + i * ldo;
    tk_gemm(block, keys, width, q_block, ld, 0, k, ld, 1, p, keys, 0, scratch);
    tk_causal_softmax(block, keys, i + 1, factor, p, keys);
    tk_gemm(keys, width, block, p, keys, 1, dout_block, ldo, 0, dv, ldg, 1, scratch);
    tk_gemm(block, keys, width, dout_block, ldo, 0, v, ld, 1, dp, keys, 0, scratch);
    tk_softmax_backward(block, keys, factor, p, dp, keys);
    tk_gemm(block, width, keys, dp, keys, 0, k, ld, 0, dq + i * ldg, ldg, 0, scratch);
    tk_gemm(keys, width, block, dp, keys, 1, q_block, ld, 0, dk, ldg, 1, scratch);
  }
}

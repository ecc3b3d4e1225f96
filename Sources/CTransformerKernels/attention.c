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

void tk_attention_backward(ptrdiff_t queries, ptrdiff_t past, ptrdiff_t width, float factor,
                           const float *q, ptrdiff_t ldq, const float *k, const float *v,
                           ptrdiff_t ldk, const float *dout, ptrdiff_t ldo, float *dq,
                           ptrdiff_t lddq, float *dk, float *dv, ptrdiff_t lddk, float *scratch) {
  float *p = scratch + TK_GEMM_SCRATCH, *dp = p + TK_ATTENTION_ROWS * (past + queries);
  for (ptrdiff_t i = 0; i < queries; i += TK_ATTENTION_ROWS) {
    ptrdiff_t block = MIN(queries - i, TK_ATTENTION_ROWS), keys = past + i + block;
    const float *q_block = q + i * ldq, *dout_block = dout + i * ldo;
    tk_gemm(block, keys, width, q_block, ldq, 0, k, ldk, 1, p, keys, 0, scratch);
    tk_causal_softmax(block, keys, past + i + 1, factor, p, keys);
    tk_gemm(keys, width, block, p, keys, 1, dout_block, ldo, 0, dv, lddk, 1, scratch);
    tk_gemm(block, keys, width, dout_block, ldo, 0, v, ldk, 1, dp, keys, 0, scratch);
    tk_softmax_backward(block, keys, factor, p, dp, keys);
    tk_gemm(block, width, keys, dp, keys, 0, k, ldk, 0, dq + i * lddq, lddq, 0, scratch);
    tk_gemm(keys, width, block, dp, keys, 1, q_block, ldq, 0, dk, lddk, 1, scratch);
  }
}

ptrdiff_t tk_cached_attention_scratch(ptrdiff_t queries, ptrdiff_t keys) {
  return queries * keys + 16;
}

void tk_cached_attention(ptrdiff_t queries, ptrdiff_t keys, ptrdiff_t width, float factor,
                         const float *q, const float *k, const float *v, ptrdiff_t capacity,
                         float *out, float *scratch) {
  float *p = scratch;
  const ptrdiff_t panel = tk_pack_width();
  tk_gemm_packed(queries, keys, width, q, width, k, panel * width, p, keys);
  for (ptrdiff_t i = 0; i < queries; i++)
    tk_causal_softmax(1, keys, keys, factor, p + i * keys, keys);
  tk_gemm_packed(queries, width, keys, p, keys, v, panel * capacity, out, width);
}

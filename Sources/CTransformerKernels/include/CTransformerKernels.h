// Inner loops of the training core: what Swift cannot vectorise for the processor at hand.
//
// Every function works on row-major Float32, allocates nothing, keeps no state, and is called from
// one thread for one piece of work. The order of all sums is fixed by the shape of a single row or
// column, never by the number of rows in a batch, the number of threads, or the vector width.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Tells the processor that this is a spinning loop.
static inline void tk_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

#pragma mark - Matrix multiplication (gemm.c)

/// Longest run of products summed in one chain: an element of C is
/// (((0 + chain of products 0..<640) + chain 640..<1280) + …), each chain one fused multiply-add
/// after the other. This holds for every shape, so that an element of C depends only on its row of
/// A and its column of B.
enum { TK_GEMM_CHAIN = 640 };
/// Columns of B that are packed at a time, to stay in the second-level cache.
enum { TK_GEMM_COLUMNS = 192 };
/// Floats of scratch memory that `tk_gemm` needs.
enum { TK_GEMM_SCRATCH = TK_GEMM_CHAIN * (TK_GEMM_COLUMNS + 64) };

/// Whether the other loops were compiled with fused multiply-add, whose rounding differs.
int tk_fuses(void);
/// "avx512", "avx2" or "generic": the multiplication kernel chosen for this processor.
const char *tk_gemm_kernel(void);
/// C (m, n) = A (m, k) · B (k, n), or C += with `accumulate`.
/// `a_transposed`: A is stored as (k, m). `b_transposed`: B is stored as (n, k).
/// `lda`, `ldb`, `ldc`: distance between stored rows. `scratch`: TK_GEMM_SCRATCH floats, 64-byte
/// aligned.
void tk_gemm(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
             int a_transposed, const float *b, ptrdiff_t ldb, int b_transposed, float *c,
             ptrdiff_t ldc, int accumulate, float *scratch);
/// The same with the kernel for the narrowest vectors, as processors without AVX-512 run it: the
/// same bits wherever there is a fused multiply-add.
void tk_gemm_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    int a_transposed, const float *b, ptrdiff_t ldb, int b_transposed, float *c,
                    ptrdiff_t ldc, int accumulate, float *scratch);

/// out (columns, rows) with row distance `ld_out` = transpose of b (rows, columns).
void tk_transpose(ptrdiff_t rows, ptrdiff_t columns, const float *b, ptrdiff_t ldb, float *out,
                  ptrdiff_t ld_out);
/// Columns to a panel of a packed matrix on this processor.
ptrdiff_t tk_pack_width(void);
/// C (m, n) = A (m, k) · B, whose columns are packed in panels of tk_pack_width(), each (k, width)
/// and `panel_distance` floats after the one before; the same bits as `tk_gemm`. What the last
/// panel holds beyond column n has no influence.
void tk_gemm_packed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                    const float *panels, ptrdiff_t panel_distance, float *c, ptrdiff_t ldc);

#pragma mark - Products with compressed weights (compressed.c)

/// How the elements of a compressed matrix B (k, n), stored transposed in a checkpoint, are kept.
/// Each is the float that the checkpoint's own encoding means:
/// nibbles: code (4 bits) · scale + minimum; bytes: code (8 bits, signed) · scale; with a float16
/// scale (and minimum) to 32 elements of a column. float16, bfloat16: itself.
typedef enum { TK_NIBBLES = 0, TK_BYTES = 1, TK_FLOAT16 = 2, TK_BFLOAT16 = 3 } tk_encoding;
/// Columns to a panel of a compressed matrix, on every processor.
enum { TK_COMPRESSED_WIDTH = 32 };
/// Elements of a column with one scale; k must be a multiple of it where there are scales.
enum { TK_COMPRESSED_BLOCK = 32 };

/// Bytes of a compressed panel.
size_t tk_compressed_panel_size(tk_encoding encoding, ptrdiff_t k);
/// Compresses one panel of `columns` columns (missing ones become zero).
/// `codes`: (columns, k) bytes, or 16-bit floats for these encodings, with row distance `ld` in
/// elements; `scales`, `minima`: (columns, k / 32) as float16 bits with row distance `ld_scales`,
/// where the encoding has them.
void tk_compress_panel(tk_encoding encoding, ptrdiff_t k, ptrdiff_t columns, const void *codes,
                       ptrdiff_t ld, const uint16_t *scales, const uint16_t *minima,
                       ptrdiff_t ld_scales, void *panel);
/// The panel's elements (k, 32).
void tk_expand_panel(tk_encoding encoding, ptrdiff_t k, const void *panel, float *out);
/// C (m, n) = A (m, k) · compressed B (k, n), or C += with `accumulate`: the same bits as `tk_gemm`
/// with the expanded B. `panels` are those of columns 0..<n. `scratch`: as for `tk_gemm`.
void tk_gemm_compressed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a, ptrdiff_t lda,
                        tk_encoding encoding, const void *panels, float *c, ptrdiff_t ldc,
                        int accumulate, float *scratch);
/// The same as processors without AVX-512 run it.
void tk_gemm_compressed_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                               ptrdiff_t lda, tk_encoding encoding, const void *panels, float *c,
                               ptrdiff_t ldc, int accumulate, float *scratch);

/// C (m, n) = A (m, k) · W, where W (k, n) is the stored matrix itself: the expanded panels are 32 rows
/// of W each. The same bits as `tk_gemm` with the expanded W. `panels`: those of all rows, from the
/// block of the first column on; `panel_columns`: columns of the whole stored matrix. n counts from
/// a multiple of TK_COMPRESSED_BLOCK. `scratch`: as for `tk_gemm`.
void tk_gemm_compressed_transposed(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                                   ptrdiff_t lda, tk_encoding encoding, const void *panels,
                                   ptrdiff_t panel_columns, float *c, ptrdiff_t ldc,
                                   float *scratch);
/// The same as processors without AVX-512 run it.
void tk_gemm_compressed_transposed_narrow(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *a,
                                          ptrdiff_t lda, tk_encoding encoding, const void *panels,
                                          ptrdiff_t panel_columns, float *c, ptrdiff_t ldc,
                                          float *scratch);

#pragma mark - Row-wise passes (elementwise.c)

/// y = x · rsqrt(mean(x²) + epsilon) · weight for each row; x, y: (rows, n). `scale`: if not null,
/// receives the factor rsqrt(…) of each row. y may be x.
void tk_rms_norm(ptrdiff_t rows, ptrdiff_t n, const float *x, const float *weight, float epsilon,
                 float *y, float *scale);
/// dx += gradient of `tk_rms_norm` with respect to x, given dy; all (rows, n). Recomputes the
/// factor of each row.
void tk_rms_norm_backward(ptrdiff_t rows, ptrdiff_t n, const float *x, const float *weight,
                          float epsilon, const float *dy, float *dx);
/// dweight (+)= Σ over rows of dy · x · scale, for columns `begin`..<`end`.
void tk_rms_norm_weight_gradient(ptrdiff_t rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                                 const float *x, const float *scale, const float *dy,
                                 float *dweight, int accumulate);

/// Rotates `heads` heads of width `width` in each row in place (half-split form: element i turns
/// with element i + width/2). x: (rows, …) with row distance `ld`; positions: (rows);
/// table: (positions, width), cosines of the width/2 frequencies, then sines. direction: 1 forward,
/// -1 the inverse rotation, which is also the gradient.
void tk_rope(ptrdiff_t rows, ptrdiff_t heads, ptrdiff_t width, float *x, ptrdiff_t ld,
             const int32_t *positions, const float *table, float direction);

/// out = silu(gate) · up for each row; gate_up: (rows, 2n), gate then up; out: (rows, n).
void tk_swiglu(ptrdiff_t rows, ptrdiff_t n, const float *gate_up, ptrdiff_t ld, float *out);
/// Gradient of `tk_swiglu`: replaces gate_up (rows, 2n) by its gradient, given dout (rows, n).
/// If `out` is not null it receives silu(gate) · up.
void tk_swiglu_backward(ptrdiff_t rows, ptrdiff_t n, float *gate_up, ptrdiff_t ld,
                        const float *dout, float *out);

/// In place, for row r of x: softmax(factor · x[0 ..< first + r]), zeros up to n. (rows, n) with
/// row distance `ld`; 7 floats after the last row must be readable and are left as they are.
void tk_causal_softmax(ptrdiff_t rows, ptrdiff_t n, ptrdiff_t first, float factor, float *x,
                       ptrdiff_t ld);
/// dp becomes factor · p · (dp - Σ p·dp) for each row: the gradient of `tk_causal_softmax`.
void tk_softmax_backward(ptrdiff_t rows, ptrdiff_t n, float factor, const float *p, float *dp,
                         ptrdiff_t ld);

/// log Σ exp(x[i]) over n elements.
double tk_log_sum_exp(ptrdiff_t n, const float *x);
/// x[i] = scale · exp(x[i] - log_sum), then x[target] -= scale: the gradient of cross-entropy.
void tk_cross_entropy_gradient(ptrdiff_t n, float *x, double log_sum, ptrdiff_t target,
                               float scale);
/// Index of the largest element, the lowest one among equals.
ptrdiff_t tk_argmax(ptrdiff_t n, const float *x);
/// x[i] = exp(x[i] - shift).
void tk_exp(ptrdiff_t n, float *x, float shift);

/// y[i] += factor · x[i].
void tk_add(ptrdiff_t n, float factor, const float *x, float *y);
/// x[i] *= factor.
void tk_scale(ptrdiff_t n, float factor, float *x);
/// Σ x[i]².
double tk_sum_of_squares(ptrdiff_t n, const float *x);

/// One step of AdamW with decoupled decay, as torch computes it: parameters (n), gradients scaled
/// by `gradient_scale`, moments. `correction1`, `correction2`: 1 - beta^step.
typedef struct {
  double learning_rate, beta1, beta2, epsilon, weight_decay, gradient_scale, correction1,
      correction2;
} tk_adamw_step;
void tk_adamw(ptrdiff_t n, const tk_adamw_step *step, float *parameters, const float *gradients,
              float *first_moment, float *second_moment);

#pragma mark - Attention (attention.c)

/// Query rows handled at a time.
enum { TK_ATTENTION_ROWS = 64 };

/// Floats of scratch memory for attention over up to `keys` keys.
ptrdiff_t tk_attention_scratch(ptrdiff_t keys);

/// Causal attention of one head: `queries` rows that follow `past` others.
/// q, out: (queries, width); k, v: (past + queries, width); each with its row distance.
void tk_attention(ptrdiff_t queries, ptrdiff_t past, ptrdiff_t width, float factor, const float *q,
                  ptrdiff_t ldq, const float *k, ptrdiff_t ldk, const float *v, ptrdiff_t ldv,
                  float *out, ptrdiff_t ldo, float *scratch);

/// Gradient of `tk_attention`, computing the probabilities again. dq is written; dk and dv, of all
/// past + queries keys, are added to. k and v share the row distance `ldk`, dk and dv `lddk`.
void tk_attention_backward(ptrdiff_t queries, ptrdiff_t past, ptrdiff_t width, float factor,
                           const float *q, ptrdiff_t ldq, const float *k, const float *v,
                           ptrdiff_t ldk, const float *dout, ptrdiff_t ldo, float *dq,
                           ptrdiff_t lddq, float *dk, float *dv, ptrdiff_t lddk, float *scratch);

/// Floats of scratch memory for `tk_cached_attention`.
ptrdiff_t tk_cached_attention_scratch(ptrdiff_t queries, ptrdiff_t keys);

/// Attention of `queries` heads of one token to the same `keys` keys; q, out: (queries, width).
/// `k`: transposed keys (width, keys), in panels of tk_pack_width() keys, one after the other.
/// `v`: values (keys, width), in panels of tk_pack_width() columns with room for `capacity` keys
/// each. The same bits as the last row of `tk_attention`.
void tk_cached_attention(ptrdiff_t queries, ptrdiff_t keys, ptrdiff_t width, float factor,
                         const float *q, const float *k, const float *v, ptrdiff_t capacity,
                         float *out, float *scratch);

#ifdef __cplusplus
}
#endif

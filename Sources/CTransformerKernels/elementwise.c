// Fused row-wise passes in vectors of 8, the same on every processor.

#include "CTransformerKernels.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef float v8 __attribute__((vector_size(32), aligned(4)));
typedef int32_t i8 __attribute__((vector_size(32), aligned(4)));
typedef double d8 __attribute__((vector_size(64), aligned(8)));

INLINE v8 load(const float *p) { return *(const v8 *)p; }
INLINE void store(float *p, v8 x) { *(v8 *)p = x; }
INLINE v8 splat(float x) { return x - (v8){0}; }

// The last, incomplete vector of a row: `fill` stands for what is missing.
INLINE v8 load_tail(const float *p, ptrdiff_t count, float fill) {
  v8 x = splat(fill);
  memcpy(&x, p, sizeof(float) * (size_t)count);
  return x;
}
INLINE void store_tail(float *p, v8 x, ptrdiff_t count) {
  memcpy(p, &x, sizeof(float) * (size_t)count);
}

INLINE float sum(v8 x) {
  float a = (x[0] + x[4]) + (x[2] + x[6]), b = (x[1] + x[5]) + (x[3] + x[7]);
  return a + b;
}
INLINE v8 maximum(v8 x, v8 y) {
  i8 greater = x > y;
  return (v8)(((i8)x & greater) | ((i8)y & ~greater));
}

// exp with a relative error below 2e-7: 2^n · e^r, |r| <= ln 2 / 2, Taylor to the sixth degree
// with minimax coefficients (Cephes expf). Below -87.3 the result is e^-87.3, above 88 it is e^88.
INLINE v8 exp_v(v8 x) {
  x = maximum(x, splat(-87.3f));
  x = -maximum(-x, splat(-88.0f));
  v8 n = x * 1.44269504088896341f + 12582912.0f;  // 1.5 · 2^23 rounds to an integer
  i8 power = (i8)n << 23;
  n -= 12582912.0f;
  v8 r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  v8 p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (v8)((i8)p + power);
}

// Σ x·y in 4 chains of 8.
INLINE float dot(ptrdiff_t n, const float *x, const float *y) {
  v8 s[4] = {{0}, {0}, {0}, {0}};
  ptrdiff_t i = 0;
  for (; i + 32 <= n; i += 32)
    for (int j = 0; j < 4; j++) s[j] += load(x + i + 8 * j) * load(y + i + 8 * j);
  for (; i + 8 <= n; i += 8) s[0] += load(x + i) * load(y + i);
  if (i < n) s[1] += load_tail(x + i, n - i, 0) * load_tail(y + i, n - i, 0);
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

INLINE float norm_scale(ptrdiff_t n, const float *x, float epsilon) {
  return 1 / sqrtf(dot(n, x, x) / (float)n + epsilon);
}

void tk_rms_norm(ptrdiff_t rows, ptrdiff_t n, const float *x, const float *weight, float epsilon,
                 float *y, float *scale) {
  for (ptrdiff_t row = 0; row < rows; row++, x += n, y += n) {
    float factor = norm_scale(n, x, epsilon);
    if (scale) scale[row] = factor;
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) store(y + i, load(x + i) * factor * load(weight + i));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
  }
}

void tk_rms_norm_backward(ptrdiff_t rows, ptrdiff_t n, const float *x, const float *weight,
                          float epsilon, const float *dy, float *dx) {
  for (ptrdiff_t row = 0; row < rows; row++, x += n, dy += n, dx += n) {
    float factor = norm_scale(n, x, epsilon);
    // dx = factor · (dy·w - x · factor² · mean(dy·w·x))
    v8 s[2] = {{0}, {0}};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
      for (int j = 0; j < 16; j += 8)
        s[j / 8] += load(dy + i + j) * load(weight + i + j) * load(x + i + j);
    for (; i < n; i += 8) {
      ptrdiff_t c = n - i < 8 ? n - i : 8;
      s[0] += load_tail(dy + i, c, 0) * load_tail(weight + i, c, 0) * load_tail(x + i, c, 0);
    }
    float projection = sum(s[0] + s[1]) / (float)n * factor * factor;
    for (i = 0; i + 8 <= n; i += 8)
      store(dx + i, load(dx + i) + (load(dy + i) * load(weight + i) - load(x + i) * projection) *
                                       factor);
    for (; i < n; i++) dx[i] += (dy[i] * weight[i] - x[i] * projection) * factor;
  }
}

void tk_rms_norm_weight_gradient(ptrdiff_t rows, ptrdiff_t n, ptrdiff_t begin, ptrdiff_t end,
                                 const float *x, const float *scale, const float *dy,
                                 float *dweight, int accumulate) {
  if (!accumulate) memset(dweight + begin, 0, sizeof(float) * (size_t)(end - begin));
  for (ptrdiff_t row = 0; row < rows; row++) {
    const float *xr = x + row * n, *dyr = dy + row * n;
    ptrdiff_t i = begin;
    for (; i + 8 <= end; i += 8)
      store(dweight + i, load(dweight + i) + load(dyr + i) * (load(xr + i) * scale[row]));
    for (; i < end; i++) dweight[i] += dyr[i] * (xr[i] * scale[row]);
  }
}

void tk_rope(ptrdiff_t rows, ptrdiff_t heads, ptrdiff_t width, float *x, ptrdiff_t ld,
             const int32_t *positions, const float *table, float direction) {
  ptrdiff_t half = width / 2;
  for (ptrdiff_t row = 0; row < rows; row++) {
    const float *cosine = table + positions[row] * width, *sine = cosine + half;
    for (ptrdiff_t head = 0; head < heads; head++) {
      float *a = x + row * ld + head * width, *b = a + half;
      ptrdiff_t i = 0;
      for (; i + 8 <= half; i += 8) {
        v8 c = load(cosine + i), s = load(sine + i) * direction, u = load(a + i), w = load(b + i);
        store(a + i, u * c - w * s);
        store(b + i, w * c + u * s);
      }
      for (; i < half; i++) {
        float c = cosine[i], s = sine[i] * direction, u = a[i], w = b[i];
        a[i] = u * c - w * s;
        b[i] = w * c + u * s;
      }
    }
  }
}

INLINE v8 sigmoid(v8 x) { return 1.0f / (1.0f + exp_v(-x)); }

void tk_swiglu(ptrdiff_t rows, ptrdiff_t n, const float *gate_up, ptrdiff_t ld, float *out) {
  for (ptrdiff_t row = 0; row < rows; row++, gate_up += ld, out += n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
      v8 g = load(gate_up + i);
      store(out + i, g * sigmoid(g) * load(gate_up + n + i));
    }
    if (i < n) {
      v8 g = load_tail(gate_up + i, n - i, 0);
      store_tail(out + i, g * sigmoid(g) * load_tail(gate_up + n + i, n - i, 0), n - i);
    }
  }
}

void tk_swiglu_backward(ptrdiff_t rows, ptrdiff_t n, float *gate_up, ptrdiff_t ld,
                        const float *dout, float *out) {
  for (ptrdiff_t row = 0; row < rows; row++, gate_up += ld, dout += n) {
    for (ptrdiff_t i = 0; i < n; i += 8) {
      ptrdiff_t c = n - i < 8 ? n - i : 8;
      int whole = c == 8;
      v8 g = whole ? load(gate_up + i) : load_tail(gate_up + i, c, 0);
      v8 u = whole ? load(gate_up + n + i) : load_tail(gate_up + n + i, c, 0);
      v8 d = whole ? load(dout + i) : load_tail(dout + i, c, 0);
      v8 s = sigmoid(g), silu = g * s;
      v8 dg = d * u * (s + silu * (1.0f - s)), du = d * silu, o = silu * u;
      if (whole) {
        store(gate_up + i, dg);
        store(gate_up + n + i, du);
        if (out) store(out + i, o);
      } else {
        store_tail(gate_up + i, dg, c);
        store_tail(gate_up + n + i, du, c);
        if (out) store_tail(out + i, o, c);
      }
    }
    if (out) out += n;
  }
}

INLINE float largest(v8 x) {
  float m = x[0];
  for (int l = 1; l < 8; l++) m = x[l] > m ? x[l] : m;
  return m;
}

INLINE float row_maximum(ptrdiff_t n, const float *x) {
  v8 m0 = splat(-INFINITY), m1 = m0;
  ptrdiff_t i = 0;
  for (; i + 16 <= n; i += 16) {
    m0 = maximum(load(x + i), m0);
    m1 = maximum(load(x + i + 8), m1);
  }
  for (; i < n; i += 8)
    m0 = maximum(load_tail(x + i, n - i < 8 ? n - i : 8, -INFINITY), m0);
  return largest(maximum(m0, m1));
}

// All bits set in the first `count` lanes.
INLINE i8 first_lanes(ptrdiff_t count) {
  const i8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
  return lane < ((int32_t)(count < 8 ? count : 8) - (i8){0});
}
INLINE v8 select_lanes(i8 mask, v8 x, v8 y) {
  return (v8)(((i8)x & mask) | ((i8)y & ~mask));
}

void tk_causal_softmax(ptrdiff_t rows, ptrdiff_t n, ptrdiff_t first, float factor, float *x,
                       ptrdiff_t ld) {
  for (ptrdiff_t row = 0; row < rows; row++, x += ld) {
    ptrdiff_t count = first + row;
    v8 m = splat(-INFINITY);
    for (ptrdiff_t i = 0; i < count; i += 8)
      m = maximum(select_lanes(first_lanes(count - i), load(x + i), splat(-INFINITY)), m);
    float shift = largest(m) * factor;
    // Beyond `count`, elements of this row and, at its end, of the next are put back unchanged.
    v8 total = {0};
    for (ptrdiff_t i = 0; i < count; i += 8) {
      v8 old = load(x + i), e = exp_v(old * factor - shift);
      i8 mask = first_lanes(count - i);
      total += select_lanes(mask, e, (v8){0});
      store(x + i, select_lanes(mask, e, old));
    }
    float inverse = 1 / sum(total);
    for (ptrdiff_t i = 0; i < count; i += 8) {
      v8 old = load(x + i);
      store(x + i, select_lanes(first_lanes(count - i), old * inverse, old));
    }
    if (count < n) memset(x + count, 0, sizeof(float) * (size_t)(n - count));
  }
}

void tk_softmax_backward(ptrdiff_t rows, ptrdiff_t n, float factor, const float *p, float *dp,
                         ptrdiff_t ld) {
  for (ptrdiff_t row = 0; row < rows; row++, p += ld, dp += ld) {
    float mean = dot(n, p, dp);
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
      store(dp + i, load(p + i) * (load(dp + i) - mean) * factor);
    for (; i < n; i++) dp[i] = p[i] * (dp[i] - mean) * factor;
  }
}

double tk_log_sum_exp(ptrdiff_t n, const float *x) {
  float shift = row_maximum(n, x);
  // Sums of 512 terms in single precision, these in double: the error does not grow with n.
  double total = 0;
  for (ptrdiff_t begin = 0; begin < n; begin += 512) {
    ptrdiff_t end = begin + 512 < n ? begin + 512 : n, i = begin;
    v8 s0 = {0}, s1 = {0};
    for (; i + 16 <= end; i += 16) {
      s0 += exp_v(load(x + i) - shift);
      s1 += exp_v(load(x + i + 8) - shift);
    }
    for (; i < end; i += 8) {
      v8 e = exp_v(load_tail(x + i, end - i < 8 ? end - i : 8, 0) - shift);
      for (ptrdiff_t l = end - i; l < 8; l++) e[l] = 0;
      s0 += e;
    }
    total += (double)sum(s0 + s1);
  }
  return (double)shift + log(total);
}

void tk_cross_entropy_gradient(ptrdiff_t n, float *x, double log_sum, ptrdiff_t target,
                               float scale) {
  tk_exp(n, x, (float)log_sum);
  x[target] -= 1;
  tk_scale(n, scale, x);
}

ptrdiff_t tk_argmax(ptrdiff_t n, const float *x) {
  float largest = row_maximum(n, x);
  for (ptrdiff_t i = 0; i < n; i++)
    if (x[i] == largest) return i;
  return 0;
}

void tk_exp(ptrdiff_t n, float *x, float shift) {
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8) store(x + i, exp_v(load(x + i) - shift));
  if (i < n) store_tail(x + i, exp_v(load_tail(x + i, n - i, 0) - shift), n - i);
}

void tk_add(ptrdiff_t n, float factor, const float *x, float *y) {
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8) store(y + i, load(y + i) + load(x + i) * factor);
  for (; i < n; i++) y[i] = fmaf(x[i], factor, y[i]);
}

void tk_scale(ptrdiff_t n, float factor, float *x) {
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8) store(x + i, load(x + i) * factor);
  for (; i < n; i++) x[i] *= factor;
}

double tk_sum_of_squares(ptrdiff_t n, const float *x) {
  d8 total = {0};
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8) {
    d8 d = __builtin_convertvector(load(x + i), d8);
    total += d * d;
  }
  double s = ((total[0] + total[4]) + (total[2] + total[6])) +
             ((total[1] + total[5]) + (total[3] + total[7]));
  for (; i < n; i++) s += (double)x[i] * (double)x[i];
  return s;
}

void tk_adamw(ptrdiff_t n, const tk_adamw_step *step, float *restrict parameters,
              const float *restrict gradients, float *restrict first_moment,
              float *restrict second_moment) {
  const float mix1 = (float)(1 - step->beta1), mix2 = (float)(1 - step->beta2),
              keep2 = (float)step->beta2, epsilon = (float)step->epsilon,
              scale = (float)step->gradient_scale,
              decay = (float)(1 - step->learning_rate * step->weight_decay),
              rate = (float)(step->learning_rate / step->correction1),
              root = (float)(1 / sqrt(step->correction2));
  for (ptrdiff_t i = 0; i < n; i++) {
    float g = gradients[i] * scale;
    float m = first_moment[i] + (g - first_moment[i]) * mix1;
    float v = second_moment[i] * keep2 + g * g * mix2;
    first_moment[i] = m;
    second_moment[i] = v;
    parameters[i] = parameters[i] * decay - rate * m / (sqrtf(v) * root + epsilon);
  }
}

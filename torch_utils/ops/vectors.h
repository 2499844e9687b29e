/* Vectors of floats as wide as the processor's: elementwise functions, and products of small matrices. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define LINE 16      /* floats that rows of scratch memory are padded to */
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec all(float x) { return (vec){} + x; }
INLINE vec choose(ivec yes, vec a, vec b) { return (vec)(((ivec)a & yes) | ((ivec)b & ~yes)); }
INLINE int64_t padded(int64_t n) { return (n + LINE - 1) / LINE * LINE; }

/* exp(x) for x <= 0, at least 1e-38: 2^n times a Taylor polynomial of what is left, |r| <= ln 2 / 2. */
INLINE vec exp_negative(vec x) {
    x = choose(x < all(-87.0f), all(-87.0f), x);
    const vec shift = all(12582912.0f);                /* 1.5 * 2^23: adding it rounds to a whole number */
    vec n = (x * 1.44269504f + shift) - shift;
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  /* ln 2 in two parts */
    vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

INLINE vec absolute(vec x) { return (vec)((ivec)x & 0x7fffffff); }

INLINE vec sigmoid(vec x) {
    vec e = exp_negative(-absolute(x));
    return choose(x < all(0.0f), e, all(1.0f)) / (1.0f + e);
}

/* softplus(x), and its derivative: max(x, 0) + log(1 + e) with e = exp(-|x|) and log(1 + e) = 2 artanh(e / (2 + e)). */
INLINE vec softplus(vec x, vec *slope) {
    vec e = exp_negative(-absolute(x)), up = 1.0f + e, half = 2.0f + e, inverse = 1.0f / (up * half);
    *slope = choose(x < all(0.0f), e, all(1.0f)) * half * inverse;
    vec s = e * up * inverse, z = s * s;
    vec p = all(1.0f / 13);
    p = p * z + 1.0f / 11;
    p = p * z + 1.0f / 9;
    p = p * z + 1.0f / 7;
    p = p * z + 1.0f / 5;
    p = p * z + 1.0f / 3;
    p = p * z + 1.0f;
    return choose(x > all(0.0f), x, all(0.0f)) + 2.0f * s * p;
}

/* c[r][n] += sum_k a[r a_row + k a_step] b[k][n] for `rows` rows and `columns` vectors: both known when compiled.
 * What many calls add to one c is summed call by call, which rounds less than one long sum. */
INLINE void block(const int rows, const int columns, int64_t inner, const float *a, int64_t a_row, int64_t a_step,
                  const float *b, int64_t b_row, float *c, int64_t c_row) {
    vec sum[12][3];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++) sum[r][v] = all(0);
    for (int64_t k = 0; k < inner; k++) {
        vec w[3];
        for (int v = 0; v < columns; v++) w[v] = load(b + k * b_row + v * LANES);
        for (int r = 0; r < rows; r++) {
            float x = a[r * a_row + k * a_step];
            for (int v = 0; v < columns; v++) sum[r][v] += x * w[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++) store(c + r * c_row + v * LANES, load(c + r * c_row + v * LANES) + sum[r][v]);
}

#define STRIPE(ROWS, COLUMNS)                                                                                \
    static void stripe_##COLUMNS(int64_t rows, int64_t inner, const float *a, int64_t a_row, int64_t a_step, \
                                 const float *b, int64_t b_row, float *c, int64_t c_row) {                   \
        int64_t r = 0;                                                                                       \
        for (; r + ROWS <= rows; r += ROWS)                                                                  \
            block(ROWS, COLUMNS, inner, a + r * a_row, a_row, a_step, b, b_row, c + r * c_row, c_row);       \
        for (; r + 4 <= rows; r += 4)                                                                        \
            block(4, COLUMNS, inner, a + r * a_row, a_row, a_step, b, b_row, c + r * c_row, c_row);          \
        for (; r < rows; r++)                                                                                \
            block(1, COLUMNS, inner, a + r * a_row, a_row, a_step, b, b_row, c + r * c_row, c_row);          \
    }
#if LANES == 16 || defined(__aarch64__) /* 32 registers */
STRIPE(12, 1)
STRIPE(12, 2)
STRIPE(8, 3)
#else
STRIPE(12, 1)
STRIPE(6, 2)
STRIPE(4, 3)
#endif

/* c += a b for [rows, inner] and [inner, width]; a is read by strides, so it may be transposed. */
static void multiply(int64_t rows, int64_t inner, int64_t width, const float *a, int64_t a_row, int64_t a_step,
                     const float *b, float *c) {
    int64_t left = width / LANES;
    const float *bn = b;
    float *cn = c;
    while (left > 0) {
        int64_t n = left == 3 ? 3 : left > 1 ? 2 : 1;
        if (n == 3) stripe_3(rows, inner, a, a_row, a_step, bn, width, cn, width);
        if (n == 2) stripe_2(rows, inner, a, a_row, a_step, bn, width, cn, width);
        if (n == 1) stripe_1(rows, inner, a, a_row, a_step, bn, width, cn, width);
        bn += n * LANES, cn += n * LANES, left -= n;
    }
}

/* Vectors of floats as wide as the processor's, and products of small matrices made of them. */
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
STRIPE(12, 1)
STRIPE(12, 2)
STRIPE(8, 3)

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

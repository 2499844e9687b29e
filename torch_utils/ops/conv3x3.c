/* 3x3 convolution with stride 1 and its gradient for the weights, by Winograd's minimal filtering F(2x2, 3x3) (Lavin
 * and Gray 2016): 16 products for four pixels instead of 36. Definition: torch's conv2d.
 *
 * Images have their channels last, weights are [3, 3, inputs, outputs]. Tiles of 2x2 results, each from 4x4 pixels, are
 * taken `group` at a time, so that their transforms stay in the cache. Channels are whole vectors: multiples of LINE.
 */
#include "vectors.h"

#define POINTS 16 /* of a transformed tile */

typedef struct {
    int64_t images, height, width, inputs, outputs, padding; /* height, width: of x */
    int64_t high, wide, group;                               /* tiles down and across an image; tiles at once */
} Shape;

/* Floats between two points of transformed tiles: not a power of two, which would crowd one set of the cache. */
INLINE int64_t apart(const Shape *s, int64_t channels) { return s->group * channels + LINE; }

/* One dimension of the transforms: of pixels (B' d), of results' products (A' m), and of their gradient (A y). */
INLINE void of_pixels(vec d[4]) {
    vec a = d[0] - d[2], b = d[1] + d[2], c = d[2] - d[1], e = d[1] - d[3];
    d[0] = a, d[1] = b, d[2] = c, d[3] = e;
}
INLINE void of_products(vec m[4]) {
    vec a = m[0] + m[1] + m[2], b = m[1] - m[2] - m[3];
    m[0] = a, m[1] = b;
}
INLINE void of_results(vec y[4]) {
    vec a = y[0], b = y[0] + y[1], c = y[0] - y[1], e = -y[1];
    y[0] = a, y[1] = b, y[2] = c, y[3] = e;
}

/* Rows of `size` pixels from (top, left) on of an image; a row of zeros where there are none. */
INLINE void find_pixels(const float *image, int64_t height, int64_t width, int64_t channels, int64_t top, int64_t left,
                        const int size, const float *zeros, const float *found[16]) {
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            int64_t y = top + i, x = left + j;
            int inside = y >= 0 && y < height && x >= 0 && x < width;
            found[i * size + j] = inside ? image + (y * width + x) * channels : zeros;
        }
}

/* Tiles from..from + count of images, `size` pixels wide, two apart: B' d B of 4x4 pixels, or A y A' of the gradients of
 * 2x2 results. To[point][tile][channel]. */
INLINE void transform(const Shape *s, const int size, const float *images, int64_t height, int64_t width, int64_t channels,
                      int64_t padding, int64_t from, int64_t count, const float *zeros, float *to) {
    void (*const one)(vec[4]) = size == 4 ? of_pixels : of_results;
    const int64_t tiles = s->high * s->wide, step = apart(s, channels);
    for (int64_t t = 0; t < count; t++) {
        int64_t tile = (from + t) % tiles, top = tile / s->wide * 2 - padding, left = tile % s->wide * 2 - padding;
        const float *image = images + (from + t) / tiles * height * width * channels, *pixel[16];
        find_pixels(image, height, width, channels, top, left, size, zeros, pixel);
        for (int64_t c = 0; c < channels; c += LANES) {
            vec d[4][4], column[4];
            for (int i = 0; i < size; i++) {
                for (int j = 0; j < size; j++) d[i][j] = load(pixel[i * size + j] + c);
                one(d[i]);
            }
            for (int j = 0; j < 4; j++) {
                for (int i = 0; i < size; i++) column[i] = d[i][j];
                one(column);
                for (int i = 0; i < 4; i++) store(to + (i * 4 + j) * step + t * channels + c, column[i]);
            }
        }
    }
}

static void transform_pixels(const Shape *s, const float *x, int64_t from, int64_t count, const float *zeros, float *to) {
    transform(s, 4, x, s->height, s->width, s->inputs, s->padding, from, count, zeros, to);
}

static void transform_results(const Shape *s, const float *y, int64_t from, int64_t count, const float *zeros, float *to) {
    const int64_t height = s->height + 2 * s->padding - 2, width = s->width + 2 * s->padding - 2;
    transform(s, 2, y, height, width, s->outputs, 0, from, count, zeros, to);
}

/* A' m A plus bias of tiles from..from + count, into the image. */
static void store_results(const Shape *s, const float *from_points, int64_t from, int64_t count, const float *bias, float *y) {
    const int64_t C = s->outputs, tiles = s->high * s->wide, step = apart(s, C);
    const int64_t height = s->height + 2 * s->padding - 2, width = s->width + 2 * s->padding - 2;
    for (int64_t t = 0; t < count; t++) {
        int64_t tile = (from + t) % tiles, top = tile / s->wide * 2, left = tile % s->wide * 2;
        float *corner = y + (((from + t) / tiles * height + top) * width + left) * C;
        const int rows = top + 1 < height ? 2 : 1, columns = left + 1 < width ? 2 : 1;
        for (int64_t c = 0; c < C; c += LANES) {
            vec m[2][4], column[4], offset = bias ? load(bias + c) : (vec){};
            for (int j = 0; j < 4; j++) {
                for (int i = 0; i < 4; i++) column[i] = load(from_points + (i * 4 + j) * step + t * C + c);
                of_products(column);
                m[0][j] = column[0], m[1][j] = column[1];
            }
            for (int i = 0; i < rows; i++) {
                of_products(m[i]);
                for (int j = 0; j < columns; j++) store(corner + (i * width + j) * C + c, m[i][j] + offset);
            }
        }
    }
}

/* G g G' of the weights: to[point][input][output]. */
static void transform_weights(const Shape *s, const float *w, float *to) {
    const int64_t size = s->inputs * s->outputs;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < size; at += LANES) {
        vec half[4][3];
        for (int j = 0; j < 3; j++) {
            vec a = load(w + j * size + at), b = load(w + (3 + j) * size + at), c = load(w + (6 + j) * size + at);
            half[0][j] = a, half[1][j] = 0.5f * (a + b + c), half[2][j] = 0.5f * (a - b + c), half[3][j] = c;
        }
        for (int i = 0; i < 4; i++) {
            vec a = half[i][0], b = half[i][1], c = half[i][2];
            vec row[4] = {a, 0.5f * (a + b + c), 0.5f * (a - b + c), c};
            for (int j = 0; j < 4; j++) store(to + (i * 4 + j) * size + at, row[j]);
        }
    }
}

/* G' u G: the gradient for the weights from that for their transform, summed over the workers. */
static void gather_weights(const Shape *s, const float *from, int64_t workers, float *w) {
    const int64_t size = s->inputs * s->outputs;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < size; at += LANES) {
        vec half[3][4];
        for (int j = 0; j < 4; j++) {
            vec u[4] = {};
            for (int64_t k = 0; k < workers; k++)
                for (int i = 0; i < 4; i++) u[i] += load(from + (k * POINTS + i * 4 + j) * size + at);
            half[0][j] = u[0] + 0.5f * (u[1] + u[2]), half[1][j] = 0.5f * (u[1] - u[2]);
            half[2][j] = 0.5f * (u[1] + u[2]) + u[3];
        }
        for (int i = 0; i < 3; i++) {
            vec *u = half[i];
            store(w + (i * 3) * size + at, u[0] + 0.5f * (u[1] + u[2]));
            store(w + (i * 3 + 1) * size + at, 0.5f * (u[1] - u[2]));
            store(w + (i * 3 + 2) * size + at, 0.5f * (u[1] + u[2]) + u[3]);
        }
    }
}

/* Results of the worker's groups of tiles. 1 if memory is short. */
static int convolve_share(const Shape *s, const float *x, const float *u, const float *bias, float *y, int64_t worker,
                          int64_t workers) {
    const int64_t all_tiles = s->images * s->high * s->wide, groups = (all_tiles + s->group - 1) / s->group;
    const int64_t C = s->inputs, O = s->outputs, pixels = POINTS * apart(s, C), products = POINTS * apart(s, O);
    float *zeros = calloc(C + pixels + products, sizeof(float)), *v = zeros + C, *m = v + pixels;
    if (!zeros) return 1;
    for (int64_t g = groups * worker / workers; g < groups * (worker + 1) / workers; g++) {
        int64_t from = g * s->group, left = all_tiles - from, count = left < s->group ? left : s->group;
        transform_pixels(s, x, from, count, zeros, v);
        memset(m, 0, products * sizeof(float));
        for (int64_t p = 0; p < POINTS; p++)
            multiply(count, C, O, v + p * apart(s, C), C, 1, u + p * C * O, m + p * apart(s, O));
        store_results(s, m, from, count, bias, y);
    }
    free(zeros);
    return 0;
}

/* Adds to u, the worker's own. */
static int correlate_share(const Shape *s, const float *x, const float *y, float *u, int64_t worker, int64_t workers) {
    const int64_t all_tiles = s->images * s->high * s->wide, groups = (all_tiles + s->group - 1) / s->group;
    const int64_t C = s->inputs, O = s->outputs, most = C > O ? C : O;
    const int64_t pixels = POINTS * apart(s, C), results = POINTS * apart(s, O);
    float *zeros = calloc(most + pixels + results, sizeof(float)), *v = zeros + most, *z = v + pixels;
    if (!zeros) return 1;
    for (int64_t g = groups * worker / workers; g < groups * (worker + 1) / workers; g++) {
        int64_t from = g * s->group, left = all_tiles - from, count = left < s->group ? left : s->group;
        transform_pixels(s, x, from, count, zeros, v);
        transform_results(s, y, from, count, zeros, z);
        for (int64_t p = 0; p < POINTS; p++)
            multiply(C, count, O, v + p * apart(s, C), 1, C, z + p * apart(s, O), u + p * C * O);
    }
    free(zeros);
    return 0;
}

/* y = conv2d(x, w) + bias (or null). Both functions return 0, or 1 if memory is short. */
int convolve(const Shape *s, const float *x, const float *w, const float *bias, float *y, int64_t workers) {
    float *u = malloc(POINTS * s->inputs * s->outputs * sizeof(float));
    if (!u) return 1;
    int failed = 0;
    transform_weights(s, w, u);
#pragma omp parallel for schedule(static, 1) reduction(| : failed)
    for (int64_t k = 0; k < workers; k++) failed |= convolve_share(s, x, u, bias, y, k, workers);
    free(u);
    return failed;
}

/* The gradient for w from x and that for y. */
int correlate(const Shape *s, const float *x, const float *y, float *w, int64_t workers) {
    const int64_t size = POINTS * s->inputs * s->outputs;
    float *u = calloc(workers * size, sizeof(float));
    if (!u) return 1;
    int failed = 0;
#pragma omp parallel for schedule(static, 1) reduction(| : failed)
    for (int64_t k = 0; k < workers; k++) failed |= correlate_share(s, x, y, u + k * size, k, workers);
    gather_weights(s, u, workers, w);
    free(u);
    return failed;
}

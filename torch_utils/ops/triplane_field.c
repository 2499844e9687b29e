/* What a tri-plane field says at points, and its gradient, in one pass that keeps its intermediates in the cache.
 *
 * Definition: field_twin() in triplane_field.py. Points are taken TILE at a time: features are looked up, two small
 * layers applied, results stored; the gradient does the same again instead of having it saved. Rows in scratch memory
 * are padded with zeros to whole cache lines. Workers are OpenMP's threads if the compiler has them: torch's own, whose
 * library is already loaded. No header of torch or of Python is needed.
 */
#include "vectors.h"

#define TILE 96      /* points at once: a multiple of the rows of every block below */
#define CORNERS 12   /* four texels on each of three planes */

/* Mirrored by Job in triplane_field.py. Gradients have one copy for each worker; null: not wanted. */
typedef struct {
    int64_t items, points, batch, height, width, features, hidden, colours, axes[6], whole_items;
    float scale, widening;                             /* 2 / side of the box; colours are widening (2 sigmoid - 1) */
    const float *planes, *where;                       /* [batch, height, width, 3, features], [items, points, 3] */
    const float *w1, *b1, *w2, *b2;                    /* [hidden, features], [hidden], [1 + colours, hidden], [1 + colours] */
    float *raw, *colour;                               /* [items, points], [items, points, colours] */
    const float *grad_raw, *grad_colour;
    float *grad_planes, *grad_where, *grad_w1, *grad_b1, *grad_w2, *grad_b2;
} Job;

/* Everything that a tile needs; features, hidden, outputs are widths of padded rows. */
typedef struct {
    int64_t features, hidden, outputs;
    float *w1, *w1t, *b1, *w2, *w2t, *b2;              /* the layers and their transposes, the density behind the colours */
    float *x, *pre, *soft, *out, *gout, *gpre, *gx;    /* rows of the tile's points */
    float *gw1, *gw2, *gb1, *gb2;
    float weight[TILE][CORNERS], slope_u[TILE][CORNERS], slope_v[TILE][CORNERS];
    int64_t cell[TILE][CORNERS];
} Scratch;

/* The texels around a coordinate on an axis of `size`, their shares (0 outside), and the slopes of the shares. */
INLINE void neighbours(float at, int64_t size, int64_t texel[2], float share[2], float slope[2]) {
    float position = (at + 1.0f) * ((float)size * 0.5f) - 0.5f;
    if (!(position > -2.0f && position < (float)size + 1.0f)) {   /* far outside, or no number, which is handed on */
        float nothing = position != position ? position : 0.0f;
        texel[0] = texel[1] = 0, share[0] = share[1] = slope[0] = slope[1] = nothing;
        return;
    }
    int64_t below = (int64_t)(position + 2.0f) - 2;    /* the floor, as position + 2 is positive */
    float part = position - (float)below;
    for (int k = 0; k < 2; k++) {
        int64_t t = below + k;
        int inside = t >= 0 && t < size;
        texel[k] = inside ? t : 0;
        share[k] = inside ? (k ? part : 1.0f - part) : 0.0f;
        slope[k] = inside ? (k ? 0.5f : -0.5f) * (float)size : 0.0f;
    }
}

/* Cells and weights of the tile's points, then their features. */
static void look_up(const Job *job, Scratch *s, int64_t item, int64_t first, int64_t count) {
    const int64_t H = job->height, W = job->width, C = job->features;
    const int64_t origin = job->batch == 1 ? 0 : item * H * W;
    for (int64_t t = 0; t < count; t++) {
        const float *point = job->where + (item * job->points + first + t) * 3;
        for (int plane = 0; plane < 3; plane++) {
            int64_t column[2], row[2];
            float share_u[2], share_v[2], du[2], dv[2];
            neighbours(point[job->axes[2 * plane]] * job->scale, W, column, share_u, du);
            neighbours(point[job->axes[2 * plane + 1]] * job->scale, H, row, share_v, dv);
            for (int k = 0; k < 4; k++) {
                int at = 4 * plane + k;
                s->cell[t][at] = ((origin + row[k >> 1] * W + column[k & 1]) * 3 + plane) * C;
                s->weight[t][at] = share_u[k & 1] * share_v[k >> 1] * (1.0f / 3);
                if (!job->grad_where) continue;
                s->slope_u[t][at] = du[k & 1] * share_v[k >> 1] * (job->scale / 3);
                s->slope_v[t][at] = share_u[k & 1] * dv[k >> 1] * (job->scale / 3);
            }
        }
        float *x = s->x + t * s->features;
        int64_t c = 0;
        for (; c + LANES <= C; c += LANES) {
            vec sum = {};
            for (int k = 0; k < CORNERS; k++) sum += s->weight[t][k] * load(job->planes + s->cell[t][k] + c);
            store(x + c, sum);
        }
        for (; c < C; c++) {
            x[c] = 0;
            for (int k = 0; k < CORNERS; k++) x[c] += s->weight[t][k] * job->planes[s->cell[t][k] + c];
        }
    }
}

static void broadcast_rows(float *rows, const float *bias, int64_t count, int64_t width) {
    for (int64_t t = 0; t < count; t++) memcpy(rows + t * width, bias, width * sizeof(float));
}

/* softplus of the first layer; pre becomes its derivative, the sigmoid. */
static void first_layer(Scratch *s, int64_t count) {
    broadcast_rows(s->pre, s->b1, count, s->hidden);
    multiply(count, s->features, s->hidden, s->x, s->features, 1, s->w1t, s->pre);
    for (int64_t i = 0; i < count * s->hidden; i += LANES) {
        vec slope;
        store(s->soft + i, softplus(load(s->pre + i), &slope));
        store(s->pre + i, slope);
    }
}

static void second_layer(const Job *job, Scratch *s, int64_t item, int64_t first, int64_t count) {
    const int64_t F = job->colours, start = item * job->points + first;
    broadcast_rows(s->out, s->b2, count, s->outputs);
    multiply(count, s->hidden, s->outputs, s->soft, s->hidden, 1, s->w2t, s->out);
    for (int64_t t = 0; t < count; t++) {
        float *row = s->out + t * s->outputs;
        job->raw[start + t] = row[F];
        for (int64_t c = 0; c < F; c += LANES) {
            store(row + c, (2 * job->widening) * sigmoid(load(row + c)) - job->widening);
        }
        memcpy(job->colour + (start + t) * F, row, F * sizeof(float));
    }
}

/* Gradients of the second layer's outputs, from those of densities and colours. */
static void output_gradients(const Job *job, Scratch *s, int64_t item, int64_t first, int64_t count) {
    const int64_t F = job->colours, start = item * job->points + first;
    const float w = job->widening;
    for (int64_t t = 0; t < count; t++) {
        float *g = s->gout + t * s->outputs, *colour = s->out + t * s->outputs;
        memcpy(g, job->grad_colour + (start + t) * F, F * sizeof(float));
        memcpy(colour, job->colour + (start + t) * F, F * sizeof(float));
        /* 2 w s (1 - s) with s = (colour / w + 1) / 2: exact to 1e-7, so with few digits where colours are black or white */
        for (int64_t c = 0; c < F; c += LANES) {
            vec y = load(colour + c);
            store(g + c, load(g + c) * ((w - y) * (w + y) * (0.5f / w)));
        }
        g[F] = job->grad_raw[start + t];
        for (int64_t c = F + 1; c < s->outputs; c++) g[c] = 0;
        for (int64_t c = 0; c < s->outputs; c += LANES) store(s->gb2 + c, load(s->gb2 + c) + load(g + c));
    }
}

static void scatter(const Job *job, const Scratch *s, float *planes, int64_t count) {
    const int64_t C = job->features;
    for (int64_t t = 0; t < count; t++) {
        const float *g = s->gx + t * s->features;
        for (int k = 0; k < CORNERS; k++) {
            float weight = s->weight[t][k], *cell = planes + s->cell[t][k];
            if (weight == 0.0f) continue;
            int64_t c = 0;
            for (; c + LANES <= C; c += LANES) store(cell + c, load(cell + c) + weight * load(g + c));
            for (; c < C; c++) cell[c] += weight * g[c];
        }
    }
}

static void point_gradients(const Job *job, const Scratch *s, int64_t item, int64_t first, int64_t count) {
    const int64_t C = job->features;
    for (int64_t t = 0; t < count; t++) {
        const float *g = s->gx + t * s->features;
        float *out = job->grad_where + (item * job->points + first + t) * 3;
        out[0] = out[1] = out[2] = 0;
        for (int k = 0; k < CORNERS; k++) {
            const float *cell = job->planes + s->cell[t][k];
            float product = 0;
            for (int64_t c = 0; c < C; c++) product += g[c] * cell[c];
            out[job->axes[k / 4 * 2]] += s->slope_u[t][k] * product;
            out[job->axes[k / 4 * 2 + 1]] += s->slope_v[t][k] * product;
        }
    }
}

static void tile_gradient(const Job *job, Scratch *s, float *planes, int64_t item, int64_t first, int64_t count) {
    look_up(job, s, item, first, count);
    first_layer(s, count);
    output_gradients(job, s, item, first, count);
    memset(s->gpre, 0, count * s->hidden * sizeof(float));
    multiply(count, job->colours + 1, s->hidden, s->gout, s->outputs, 1, s->w2, s->gpre);
    multiply(job->colours + 1, count, s->hidden, s->gout, 1, s->outputs, s->soft, s->gw2);
    for (int64_t t = 0; t < count; t++)
        for (int64_t h = 0; h < s->hidden; h += LANES) {
            float *g = s->gpre + t * s->hidden + h;
            store(g, load(g) * load(s->pre + t * s->hidden + h));
            store(s->gb1 + h, load(s->gb1 + h) + load(g));
        }
    multiply(job->hidden, count, s->features, s->gpre, 1, s->hidden, s->x, s->gw1);
    if (!planes && !job->grad_where) return;
    memset(s->gx, 0, count * s->features * sizeof(float));
    multiply(count, job->hidden, s->features, s->gpre, s->hidden, 1, s->w1, s->gx);
    if (planes) scatter(job, s, planes, count);
    if (job->grad_where) point_gradients(job, s, item, first, count);
}

/* Padded copies of the layers. The density, first among the outputs, goes behind the colours. */
static void pack(const Job *job, Scratch *s) {
    const int64_t C = job->features, D = job->hidden, F = job->colours;
    for (int64_t h = 0; h < D; h++) {
        s->b1[h] = job->b1[h];
        for (int64_t c = 0; c < C; c++)
            s->w1[h * s->features + c] = s->w1t[c * s->hidden + h] = job->w1[h * C + c];
    }
    for (int64_t o = 0; o <= F; o++) {
        int64_t from = (o + 1) % (F + 1);
        s->b2[o] = job->b2[from];
        for (int64_t h = 0; h < D; h++)
            s->w2[o * s->hidden + h] = s->w2t[h * s->outputs + o] = job->w2[from * D + h];
    }
}

/* Null if memory is short. One block of memory, all zeros. */
static Scratch *begin(const Job *job) {
    int64_t C = padded(job->features), D = padded(job->hidden), O = padded(job->colours + 1);
    int64_t sizes[] = {D * C, C * D, D, O * D, D * O, O, TILE * C, TILE * D, TILE * D, TILE * O, TILE * O, TILE * D,
                       TILE * C, D * C, O * D, D, O};
    const int64_t count = sizeof(sizes) / sizeof(*sizes);
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) total += sizes[i];
    Scratch *s = calloc(1, sizeof(Scratch) + total * sizeof(float));
    if (!s) return 0;
    s->features = C, s->hidden = D, s->outputs = O;
    float **parts[] = {&s->w1, &s->w1t, &s->b1, &s->w2, &s->w2t, &s->b2, &s->x, &s->pre, &s->soft, &s->out, &s->gout,
                       &s->gpre, &s->gx, &s->gw1, &s->gw2, &s->gb1, &s->gb2};
    float *next = (float *)(s + 1);
    for (int64_t i = 0; i < count; i++) *parts[i] = next, next += sizes[i];
    pack(job, s);
    return s;
}

/* The worker's tiles: a run of all tiles, or of all items if no two workers may touch one item. */
static void share_of(const Job *job, int64_t worker, int64_t workers, int64_t tiles, int64_t *from, int64_t *to) {
    int64_t unit = job->whole_items ? tiles : 1, units = job->items * tiles / unit;
    *from = units * worker / workers * unit;
    *to = units * (worker + 1) / workers * unit;
}

static int forward_share(const Job *job, int64_t worker, int64_t workers) {
    Scratch *s = begin(job);
    if (!s) return 1;
    int64_t tiles = (job->points + TILE - 1) / TILE, from, to;
    share_of(job, worker, workers, tiles, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t item = i / tiles, first = i % tiles * TILE, left = job->points - first;
        int64_t count = left < TILE ? left : TILE;
        look_up(job, s, item, first, count);
        first_layer(s, count);
        second_layer(job, s, item, first, count);
    }
    free(s);
    return 0;
}

static int backward_share(const Job *job, int64_t worker, int64_t workers) {
    Scratch *s = begin(job);
    if (!s) return 1;
    const int64_t C = job->features, D = job->hidden, F = job->colours;
    int64_t tiles = (job->points + TILE - 1) / TILE, from, to;
    float *planes = job->grad_planes;
    if (planes && job->batch == 1) planes += worker * job->height * job->width * 3 * C;
    share_of(job, worker, workers, tiles, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t first = i % tiles * TILE, left = job->points - first;
        tile_gradient(job, s, planes, i / tiles, first, left < TILE ? left : TILE);
    }
    for (int64_t h = 0; h < D; h++) memcpy(job->grad_w1 + (worker * D + h) * C, s->gw1 + h * s->features, C * sizeof(float));
    memcpy(job->grad_b1 + worker * D, s->gb1, D * sizeof(float));
    for (int64_t o = 0; o <= F; o++) {
        int64_t to_row = worker * (F + 1) + (o + 1) % (F + 1);
        memcpy(job->grad_w2 + to_row * D, s->gw2 + o * s->hidden, D * sizeof(float));
        job->grad_b2[to_row] = s->gb2[o];
    }
    free(s);
    return 0;
}

/* The shares of all workers, on as many threads as torch uses. Return 0, or 1 if memory was short. */
#define ON_ALL_THREADS(NAME)                                                                     \
    int field_##NAME(const Job *job, int64_t workers) {                                          \
        int failed = 0;                                                                          \
        _Pragma("omp parallel for schedule(static, 1) reduction(| : failed)")                    \
        for (int64_t worker = 0; worker < workers; worker++) failed |= NAME##_share(job, worker, workers); \
        return failed;                                                                           \
    }
ON_ALL_THREADS(forward)
ON_ALL_THREADS(backward)

/* A tri-plane field at TILE points, by one warp: look-up, two layers, and the gradient of both (the decoder of EG3D).
 *
 * Definition: field_twin() in triplane_field.py. Lanes share out channels: lane l has features, hidden units and
 * colours l, l + 32, ... of every point. What one lane has and all need goes through the warp's rows in shared memory.
 * A weight read from there serves all points of the tile. FEATURES, HIDDEN, COLOURS and AXES are known when it is
 * compiled.
 */
#include "kernel.cuh"

#define WARP 32
#define WARPS 4 /* of a block */
#define TILE 4  /* points at once; TILE * 6 coordinates on planes must not be more than lanes */
#define OUTPUTS (1 + (COLOURS))
#define SHARE(n) ((n) > WARP ? ((n) + WARP - 1) / WARP : 1) /* how many of n numbers a lane has, at most */
#define COORDINATE(k) ((AXES) >> 4 * (5 - (k)) & 15) /* a digit each: across and down plane 0, plane 1, plane 2 */
#define FEW _Pragma("unroll") for
#define MANY _Pragma("unroll 8") for /* where no array in registers is indexed */

/* The layers in shared memory, their rows of odd length so that lanes on one column do not meet in a bank. */
typedef struct {
    float w1[HIDDEN][FEATURES | 1], b1[HIDDEN], w2[OUTPUTS][HIDDEN | 1], b2[OUTPUTS];
} Layers;

/* The texels around one coordinate on one axis of a plane, their shares (0 outside) and the slopes of these. */
typedef struct {
    int at[2];
    float share[2], slope[2];
} Axis;

/* What lanes tell one another about the tile, for one warp. */
typedef struct {
    float x[FEATURES][TILE], soft[HIDDEN][TILE], out[OUTPUTS][TILE], pre[HIDDEN][TILE];
    Axis axes[TILE][6];
} Rows;

/* A lane's part of some points: features, softplus of the first layer and its slope, sigmoids of colours, density. */
template <int POINTS> struct State {
    float x[SHARE(FEATURES)][POINTS], soft[SHARE(HIDDEN)][POINTS], slope[SHARE(HIDDEN)][POINTS];
    float shade[SHARE(COLOURS)][POINTS], raw[POINTS];
};

/* A lane's part of the layers' gradients. */
typedef struct {
    float w1[SHARE(HIDDEN)][FEATURES], b1[SHARE(HIDDEN)], w2[SHARE(COLOURS)][HIDDEN], b2[SHARE(COLOURS)];
    float w2_raw[SHARE(HIDDEN)], b2_raw;
} LayerGradients;

/* The field: planes [batch, height, width, 3, FEATURES] and layers as torch has them. Their gradients may be null. */
typedef struct {
    const float *planes, *w1, *b1, *w2, *b2;
    float *grad_planes, *grad_w1, *grad_b1, *grad_w2, *grad_b2;
    int batch, height, width;
    float scale, widening; /* 2 / side of the box; colours are widening (2 sigmoid - 1) */
} Field;

INLINE float warp_sum(float x) {
    for (int mask = WARP / 2; mask; mask /= 2) x += __shfl_xor_sync(0xffffffffu, x, mask);
    return x;
}

INLINE void load_layers(const Field &field, Layers *layers) {
    const int first = threadIdx.x, step = blockDim.x;
    for (int i = first; i < HIDDEN * FEATURES; i += step) layers->w1[i / FEATURES][i % FEATURES] = field.w1[i];
    for (int i = first; i < OUTPUTS * HIDDEN; i += step) layers->w2[i / HIDDEN][i % HIDDEN] = field.w2[i];
    for (int i = first; i < HIDDEN; i += step) layers->b1[i] = field.b1[i];
    for (int i = first; i < OUTPUTS; i += step) layers->b2[i] = field.b2[i];
    __syncthreads();
}

INLINE const float *planes_of(const Field &field, long long item) {
    return field.planes + (field.batch == 1 ? 0 : item) * field.height * field.width * 3 * FEATURES;
}

/* Which coordinate of a point the lane's share of the tile needs: lanes 0 to 5 of point 0, 6 to 11 of point 1, ... */
INLINE int my_coordinate(int lane) { return COORDINATE(lane % 6); }

/* Every lane knows one coordinate of one point, `at`; all then know the texels around all points. */
INLINE void locate(const Field &field, Rows *rows, int lane, float at) {
    const int down = lane & 1, size = down ? field.height : field.width; /* v runs down, u across */
    const int stride = (down ? field.width : 1) * 3 * FEATURES;
    const float position = (at * field.scale + 1.0f) * (size * 0.5f) - 0.5f;
    Axis axis;
    if (position > -2.0f && position < size + 1.0f) {
        const int below = (int)floorf(position);
        const float part = position - below;
        FEW(int k = 0; k < 2; k++) {
            const int texel = below + k, inside = texel >= 0 && texel < size;
            axis.at[k] = inside ? texel * stride : 0;
            axis.share[k] = inside ? (k ? part : 1.0f - part) : 0.0f;
            axis.slope[k] = inside ? (k ? 0.5f : -0.5f) * size * field.scale : 0.0f;
        }
    } else { /* far outside, or no number, which is handed on */
        const float nothing = position != position ? position : 0.0f;
        FEW(int k = 0; k < 2; k++) axis.at[k] = 0, axis.share[k] = axis.slope[k] = nothing;
    }
    __syncwarp(); /* all lanes have read what was there before */
    if (lane < TILE * 6) rows->axes[lane / 6][lane % 6] = axis;
    __syncwarp();
}

/* What the field says at the located points, as points `first` to first + TILE - 1 of the state. */
template <int POINTS> INLINE void evaluate(
    const Field &field, const Layers *layers, Rows *rows, int lane, const float *planes, State<POINTS> &s, int first
) {
    FEW(int t = 0; t < TILE; t++) {
        FEW(int i = 0; i < SHARE(FEATURES); i++) s.x[i][first + t] = 0;
        FEW(int plane = 0; plane < 3; plane++) {
            const Axis u = rows->axes[t][2 * plane], v = rows->axes[t][2 * plane + 1];
            FEW(int k = 0; k < 4; k++) {
                const float *cell = planes + plane * FEATURES + u.at[k & 1] + v.at[k >> 1];
                const float weight = u.share[k & 1] * v.share[k >> 1] * (1.0f / 3);
                FEW(int i = 0; i < SHARE(FEATURES); i++) {
                    const int c = lane + i * WARP;
                    if (c < FEATURES) s.x[i][first + t] += weight * cell[c];
                }
            }
        }
    }
    FEW(int i = 0; i < SHARE(FEATURES); i++) {
        const int c = lane + i * WARP;
        FEW(int t = 0; t < TILE; t++) {
            if (c < FEATURES) rows->x[c][t] = s.x[i][first + t];
        }
    }
    __syncwarp();
    float raw[TILE] = {};
    FEW(int i = 0; i < SHARE(HIDDEN); i++) {
        const int h = lane + i * WARP;
        float sum[TILE] = {};
        if (h < HIDDEN) {
            MANY(int c = 0; c < FEATURES; c++) {
                FEW(int t = 0; t < TILE; t++) sum[t] += layers->w1[h][c] * rows->x[c][t];
            }
        }
        FEW(int t = 0; t < TILE; t++) {
            const float pre = h < HIDDEN ? sum[t] + layers->b1[h] : 0.0f, small = expf(-fabsf(pre));
            s.soft[i][first + t] = fmaxf(pre, 0.0f) + log1pf(small);
            s.slope[i][first + t] = (pre < 0 ? small : 1.0f) / (1 + small);
            if (h < HIDDEN) rows->soft[h][t] = s.soft[i][first + t];
            if (h < HIDDEN) raw[t] += layers->w2[0][h] * s.soft[i][first + t];
        }
    }
    __syncwarp();
    FEW(int t = 0; t < TILE; t++) s.raw[first + t] = warp_sum(raw[t]) + layers->b2[0];
    FEW(int i = 0; i < SHARE(COLOURS); i++) {
        const int o = lane + i * WARP + 1;
        float sum[TILE] = {};
        if (o < OUTPUTS) {
            MANY(int h = 0; h < HIDDEN; h++) {
                FEW(int t = 0; t < TILE; t++) sum[t] += layers->w2[o][h] * rows->soft[h][t];
            }
        }
        FEW(int t = 0; t < TILE; t++) {
            s.shade[i][first + t] = o < OUTPUTS ? 1 / (1 + expf(-(sum[t] + layers->b2[o]))) : 0.5f;
        }
    }
}

/* The gradients of points 0 to TILE - 1 of the state, from those of colours before the sigmoid and of raw densities.
 * The layers' are added to `sum`, those of features come out. */
template <int POINTS> INLINE void differentiate(
    const Layers *layers, Rows *rows, int lane, const State<POINTS> &s, const float (&grad)[SHARE(COLOURS)][TILE],
    const float (&grad_raw)[TILE], LayerGradients &sum, float (&grad_x)[SHARE(FEATURES)][TILE]
) {
    __syncwarp(); /* all lanes have read what was there before */
    FEW(int t = 0; t < TILE; t++) {
        FEW(int i = 0; i < SHARE(FEATURES); i++) {
            if (lane + i * WARP < FEATURES) rows->x[lane + i * WARP][t] = s.x[i][t];
        }
        FEW(int i = 0; i < SHARE(HIDDEN); i++) {
            if (lane + i * WARP < HIDDEN) rows->soft[lane + i * WARP][t] = s.soft[i][t];
        }
        FEW(int i = 0; i < SHARE(COLOURS); i++) {
            if (lane + i * WARP < COLOURS) rows->out[lane + i * WARP + 1][t] = grad[i][t];
            sum.b2[i] += grad[i][t];
        }
        if (lane == 0) rows->out[0][t] = grad_raw[t];
        sum.b2_raw += grad_raw[t];
    }
    __syncwarp();
    FEW(int i = 0; i < SHARE(HIDDEN); i++) {
        const int h = lane + i * WARP;
        float pre[TILE] = {};
        if (h < HIDDEN) {
            MANY(int o = 0; o < OUTPUTS; o++) {
                FEW(int t = 0; t < TILE; t++) pre[t] += layers->w2[o][h] * rows->out[o][t];
            }
        }
        FEW(int t = 0; t < TILE; t++) {
            pre[t] *= s.slope[i][t];
            if (h < HIDDEN) rows->pre[h][t] = pre[t];
            sum.b1[i] += pre[t];
            sum.w2_raw[i] += grad_raw[t] * s.soft[i][t];
        }
        FEW(int c = 0; c < FEATURES; c++) {
            FEW(int t = 0; t < TILE; t++) sum.w1[i][c] += pre[t] * rows->x[c][t];
        }
    }
    FEW(int i = 0; i < SHARE(COLOURS); i++) {
        FEW(int h = 0; h < HIDDEN; h++) {
            FEW(int t = 0; t < TILE; t++) sum.w2[i][h] += grad[i][t] * rows->soft[h][t];
        }
    }
    __syncwarp();
    FEW(int i = 0; i < SHARE(FEATURES); i++) {
        const int c = lane + i * WARP;
        FEW(int t = 0; t < TILE; t++) grad_x[i][t] = 0;
        if (c < FEATURES) {
            MANY(int h = 0; h < HIDDEN; h++) {
                FEW(int t = 0; t < TILE; t++) grad_x[i][t] += layers->w1[h][c] * rows->pre[h][t];
            }
        }
    }
}

/* From gradients of features at located points `from` to `to` - 1: planes' are added, and each lane's part of the
 * points' comes out (0 for other points). */
INLINE void scatter(
    const Field &field, const Rows *rows, int lane, const float *planes, const float (&grad_x)[SHARE(FEATURES)][TILE],
    int from, int to, float (&grad_point)[TILE][3]
) {
    FEW(int t = 0; t < TILE; t++) {
        FEW(int k = 0; k < 3; k++) grad_point[t][k] = 0;
        if (t < from || t >= to) continue;
        FEW(int plane = 0; plane < 3; plane++) {
            const Axis u = rows->axes[t][2 * plane], v = rows->axes[t][2 * plane + 1];
            FEW(int k = 0; k < 4; k++) {
                const float *cell = planes + plane * FEATURES + u.at[k & 1] + v.at[k >> 1];
                const float weight = u.share[k & 1] * v.share[k >> 1] * (1.0f / 3);
                float *grad = field.grad_planes && weight != 0 ? field.grad_planes + (cell - field.planes) : 0;
                float product = 0;
                FEW(int i = 0; i < SHARE(FEATURES); i++) {
                    const int c = lane + i * WARP;
                    if (c >= FEATURES) continue;
                    if (grad) atomicAdd(grad + c, weight * grad_x[i][t]);
                    product += grad_x[i][t] * cell[c] * (1.0f / 3);
                }
                grad_point[t][COORDINATE(2 * plane)] += product * u.slope[k & 1] * v.share[k >> 1];
                grad_point[t][COORDINATE(2 * plane + 1)] += product * u.share[k & 1] * v.slope[k >> 1];
            }
        }
    }
}

/* A warp's part of the layers' gradients goes to where all parts are added. */
INLINE void hand_over(const Field &field, int lane, const LayerGradients &sum) {
    FEW(int i = 0; i < SHARE(HIDDEN); i++) {
        const int h = lane + i * WARP;
        if (h >= HIDDEN) continue;
        FEW(int c = 0; c < FEATURES; c++) atomicAdd(field.grad_w1 + h * FEATURES + c, sum.w1[i][c]);
        atomicAdd(field.grad_b1 + h, sum.b1[i]);
        atomicAdd(field.grad_w2 + h, sum.w2_raw[i]);
    }
    FEW(int i = 0; i < SHARE(COLOURS); i++) {
        const int o = lane + i * WARP + 1;
        if (o >= OUTPUTS) continue;
        FEW(int h = 0; h < HIDDEN; h++) atomicAdd(field.grad_w2 + o * HIDDEN + h, sum.w2[i][h]);
        atomicAdd(field.grad_b2 + o, sum.b2[i]);
    }
    if (lane == 0) atomicAdd(field.grad_b2, sum.b2_raw);
}

/* A tri-plane field seen along rays: look-up, decoder and compositing in one kernel that keeps nothing of a sample.
 *
 * Definition: march_twin() in ray_march.py. A warp takes a ray, TILE samples at a time (triplane.cuh), from near to
 * far. The gradient asks the field again. It needs what lies behind an interval, which is what the whole ray has less
 * what came before, so one sweep does: with u the samples' weights, v the loss's slopes in them, w the intervals'
 * weights and a the means of the two ends' v, the whole is sum_k a_k w_k = sum_i u_i v_i, known from the results. A
 * sample's own gradient needs the interval behind it, so the last one of a tile waits for the next tile.
 */
#include "triplane.cuh"

/* Mirrored by _Job in ray_march.py. */
typedef struct {
    Field field;
    const float *origins, *directions, *depths; /* [rays, 3], [rays, 3], [rays, samples] from near to far */
    float *total, *moment, *opacity;            /* [rays, COLOURS], [rays], [rays]: sums of u c, u z, u */
    const float *grad_total, *grad_moment, *grad_opacity;
    float *grad_origins, *grad_directions;      /* null: not wanted */
    long long rays, rays_of_item;
    int samples, relu;
    float shift;
} Job;

/* An interval's weight, from raw density and width. `passed` is the optical depth before it, then behind it. */
INLINE float weigh(const Job &job, float raw, float width, float *passed, float *slope) {
    const float x = raw + job.shift, small = expf(-fabsf(x)), before = expf(-*passed);
    const float softplus = fmaxf(x, 0.0f) + log1pf(small);
    const float thickness = (job.relu ? (x < 0 ? 0.0f : x) : softplus) * width;
    *slope = job.relu ? (x > 0 ? 1.0f : 0.0f) : (x < 0 ? small : 1.0f) / (1 + small);
    *passed += thickness;
    return -before * expm1f(-thickness);
}

/* Texels around TILE samples of a ray, of which the first may be -1 and the last too many. */
INLINE void locate_samples(const Job &job, Rows *rows, int lane, int mine, long long ray, int first) {
    int at = first + (lane / 6 < TILE ? lane / 6 : 0);
    at = at < 0 ? 0 : at < job.samples ? at : job.samples - 1;
    const float depth = job.depths[ray * job.samples + at];
    locate(job.field, rows, lane, job.origins[ray * 3 + mine] + depth * job.directions[ray * 3 + mine]);
}

INLINE float depth_of(const Job &job, long long ray, int sample) {
    return job.depths[ray * job.samples + (sample < job.samples ? sample : job.samples - 1)];
}

KERNEL(march_forward) {
    __shared__ Layers layers;
    __shared__ Rows all_rows[WARPS];
    load_layers(job.field, &layers);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, mine = my_coordinate(lane);
    const float widening = job.field.widening;
    Rows *rows = &all_rows[warp];
    for (long long ray = (long long)blockIdx.x * WARPS + warp; ray < job.rays; ray += (long long)gridDim.x * WARPS) {
        const float *planes = planes_of(job.field, ray / job.rays_of_item);
        State<TILE + 1> s; /* point 0 is the last one of the tile before */
        float total[SHARE(COLOURS)] = {}, moment = 0, opacity = 0, passed = 0, depth[TILE + 1], slope;
        for (int first = 0; first < job.samples; first += TILE) {
            locate_samples(job, rows, lane, mine, ray, first);
            evaluate(job.field, &layers, rows, lane, planes, s, 1);
            FEW(int t = 0; t < TILE; t++) depth[t + 1] = depth_of(job, ray, first + t);
            FEW(int t = 0; t < TILE; t++) {
                if (first + t == 0 || first + t >= job.samples) continue;
                const float raw = (s.raw[t] + s.raw[t + 1]) / 2, width = depth[t + 1] - depth[t];
                const float weight = weigh(job, raw, width, &passed, &slope);
                opacity += weight;
                moment += weight * ((depth[t] + depth[t + 1]) / 2);
                FEW(int i = 0; i < SHARE(COLOURS); i++) {
                    total[i] += weight * (widening * (s.shade[i][t] + s.shade[i][t + 1] - 1));
                }
            }
            s.raw[0] = s.raw[TILE], depth[0] = depth[TILE];
            FEW(int i = 0; i < SHARE(COLOURS); i++) s.shade[i][0] = s.shade[i][TILE];
        }
        if (lane == 0) job.moment[ray] = moment, job.opacity[ray] = opacity;
        FEW(int i = 0; i < SHARE(COLOURS); i++) {
            if (lane + i * WARP < COLOURS) job.total[ray * COLOURS + lane + i * WARP] = total[i];
        }
    }
}

/* What a sample waits with for the interval behind it. */
typedef struct {
    float depth, value, weight, grad_raw; /* value: the slope of the loss in its weight */
} Waiting;

KERNEL(march_backward) {
    __shared__ Layers layers;
    __shared__ Rows all_rows[WARPS];
    load_layers(job.field, &layers);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, mine = my_coordinate(lane);
    const float widening = job.field.widening;
    Rows *rows = &all_rows[warp];
    LayerGradients sum = {};
    for (long long ray = (long long)blockIdx.x * WARPS + warp; ray < job.rays; ray += (long long)gridDim.x * WARPS) {
        const float *planes = planes_of(job.field, ray / job.rays_of_item);
        const float grad_moment = job.grad_moment[ray], grad_opacity = job.grad_opacity[ray];
        float grad_total[SHARE(COLOURS)], left = 0, passed = 0, grad_origin[3] = {}, grad_direction[3] = {};
        FEW(int i = 0; i < SHARE(COLOURS); i++) {
            const int c = lane + i * WARP;
            grad_total[i] = c < COLOURS ? job.grad_total[ray * COLOURS + c] : 0.0f;
            if (c < COLOURS) left += grad_total[i] * job.total[ray * COLOURS + c];
        }
        left = warp_sum(left) + grad_moment * job.moment[ray] + grad_opacity * job.opacity[ray];
        State<TILE + 1> s = {};
        Waiting w[TILE + 1] = {};
        for (int first = 0; first <= job.samples; first += TILE) { /* at last it may be for the one that waits alone */
            const int size = job.samples - first < TILE ? job.samples - first : TILE;
            locate_samples(job, rows, lane, mine, ray, first);
            evaluate(job.field, &layers, rows, lane, planes, s, 1);
            FEW(int t = 1; t <= TILE; t++) {
                float value = 0;
                FEW(int i = 0; i < SHARE(COLOURS); i++) value += grad_total[i] * (widening * (2 * s.shade[i][t] - 1));
                const float depth = depth_of(job, ray, first + t - 1);
                w[t] = {depth, warp_sum(value) + grad_moment * depth + grad_opacity, 0.0f, 0.0f};
            }
            FEW(int t = 0; t < TILE; t++) {
                if (first + t == 0 || t >= size) continue;
                float slope;
                const float raw = (s.raw[t] + s.raw[t + 1]) / 2, width = w[t + 1].depth - w[t].depth;
                const float weight = weigh(job, raw, width, &passed, &slope), value = (w[t].value + w[t + 1].value) / 2;
                left -= value * weight;
                const float grad = (value * expf(-passed) - left) * width * slope / 2;
                w[t].weight += weight / 2, w[t + 1].weight += weight / 2;
                w[t].grad_raw += grad, w[t + 1].grad_raw += grad;
            }
            const int from = first ? 0 : 1, to = size < TILE ? size + 1 : TILE; /* points of which all is known now */
            float grad[SHARE(COLOURS)][TILE], grad_raw[TILE], grad_x[SHARE(FEATURES)][TILE], grad_point[TILE][3];
            FEW(int t = 0; t < TILE; t++) {
                const bool known = t >= from && t < to;
                grad_raw[t] = known ? w[t].grad_raw : 0.0f;
                FEW(int i = 0; i < SHARE(COLOURS); i++) {
                    const float slope = 2 * widening * s.shade[i][t] * (1 - s.shade[i][t]);
                    grad[i][t] = known ? w[t].weight * grad_total[i] * slope : 0.0f;
                }
            }
            differentiate(&layers, rows, lane, s, grad, grad_raw, sum, grad_x);
            locate_samples(job, rows, lane, mine, ray, first - 1);
            scatter(job.field, rows, lane, planes, grad_x, from, to, grad_point);
            FEW(int t = 0; t < TILE; t++) {
                FEW(int k = 0; k < 3; k++) {
                    grad_origin[k] += grad_point[t][k];
                    grad_direction[k] += w[t].depth * grad_point[t][k];
                }
            }
            w[0] = w[TILE], s.raw[0] = s.raw[TILE];
            FEW(int i = 0; i < SHARE(FEATURES); i++) s.x[i][0] = s.x[i][TILE];
            FEW(int i = 0; i < SHARE(HIDDEN); i++) s.soft[i][0] = s.soft[i][TILE], s.slope[i][0] = s.slope[i][TILE];
            FEW(int i = 0; i < SHARE(COLOURS); i++) s.shade[i][0] = s.shade[i][TILE];
        }
        if (!job.grad_origins) continue;
        FEW(int k = 0; k < 3; k++) {
            const float origin = warp_sum(grad_origin[k]), direction = warp_sum(grad_direction[k]);
            if (lane == 0) job.grad_origins[ray * 3 + k] = origin, job.grad_directions[ray * 3 + k] = direction;
        }
    }
    hand_over(job.field, lane, sum);
}

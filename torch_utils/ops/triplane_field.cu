/* What a tri-plane field says at points, and its gradient, which recomputes all but its result.
 *
 * Definition: field_twin() in triplane_field.py. A warp takes TILE points at a time (triplane.cuh).
 */
#include "triplane.cuh"

/* Mirrored by _KernelJob in triplane_field.py. */
typedef struct {
    Field field;
    const float *points;   /* [items, count, 3] */
    float *raw, *colour;   /* [items, count], [items, count, COLOURS] */
    const float *grad_raw, *grad_colour;
    float *grad_points;    /* null: not wanted */
    long long items, count;
} Job;

/* One tile of points of one item. */
typedef struct {
    const float *planes;
    long long start; /* of its points among all */
    int size;
} Tile;

INLINE Tile locate_tile(const Job &job, Rows *rows, int lane, int mine, long long index, long long tiles) {
    const long long item = index / tiles, first = index % tiles * TILE, left = job.count - first;
    Tile tile = {planes_of(job.field, item), item * job.count + first, left < TILE ? (int)left : TILE};
    const int t = lane / 6 < tile.size ? lane / 6 : 0;
    locate(job.field, rows, lane, job.points[(tile.start + t) * 3 + mine]);
    return tile;
}

KERNEL(field_forward) {
    __shared__ Layers layers;
    __shared__ Rows all_rows[WARPS];
    load_layers(job.field, &layers);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, mine = my_coordinate(lane);
    const long long tiles = (job.count + TILE - 1) / TILE, step = (long long)gridDim.x * WARPS;
    const float widening = job.field.widening;
    Rows *rows = &all_rows[warp];
    for (long long index = (long long)blockIdx.x * WARPS + warp; index < job.items * tiles; index += step) {
        const Tile tile = locate_tile(job, rows, lane, mine, index, tiles);
        State<TILE> s;
        evaluate(job.field, &layers, rows, lane, tile.planes, s, 0);
        FEW(int t = 0; t < TILE; t++) {
            if (t >= tile.size) continue;
            if (lane == 0) job.raw[tile.start + t] = s.raw[t];
            FEW(int i = 0; i < SHARE(COLOURS); i++) {
                const int c = lane + i * WARP;
                if (c < COLOURS) job.colour[(tile.start + t) * COLOURS + c] = widening * (2 * s.shade[i][t] - 1);
            }
        }
    }
}

KERNEL(field_backward) {
    __shared__ Layers layers;
    __shared__ Rows all_rows[WARPS];
    load_layers(job.field, &layers);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, mine = my_coordinate(lane);
    const long long tiles = (job.count + TILE - 1) / TILE, step = (long long)gridDim.x * WARPS;
    const float widening = job.field.widening;
    Rows *rows = &all_rows[warp];
    LayerGradients sum = {};
    for (long long index = (long long)blockIdx.x * WARPS + warp; index < job.items * tiles; index += step) {
        const Tile tile = locate_tile(job, rows, lane, mine, index, tiles);
        State<TILE> s;
        evaluate(job.field, &layers, rows, lane, tile.planes, s, 0);
        float grad[SHARE(COLOURS)][TILE], grad_raw[TILE], grad_x[SHARE(FEATURES)][TILE], grad_point[TILE][3];
        FEW(int t = 0; t < TILE; t++) {
            grad_raw[t] = t < tile.size ? job.grad_raw[tile.start + t] : 0.0f;
            FEW(int i = 0; i < SHARE(COLOURS); i++) {
                const int c = lane + i * WARP;
                const float slope = 2 * widening * s.shade[i][t] * (1 - s.shade[i][t]);
                const bool there = t < tile.size && c < COLOURS;
                grad[i][t] = there ? job.grad_colour[(tile.start + t) * COLOURS + c] * slope : 0.0f;
            }
        }
        differentiate(&layers, rows, lane, s, grad, grad_raw, sum, grad_x);
        scatter(job.field, rows, lane, tile.planes, grad_x, 0, tile.size, grad_point);
        if (!job.grad_points) continue;
        FEW(int i = 0; i < TILE * 3; i++) {
            const float whole = warp_sum(grad_point[i / 3][i % 3]);
            if (lane == 0 && i / 3 < tile.size) job.grad_points[(tile.start + i / 3) * 3 + i % 3] = whole;
        }
    }
    hand_over(job.field, lane, sum);
}

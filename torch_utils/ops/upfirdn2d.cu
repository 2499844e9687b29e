/* Pad, upsample, filter and downsample images. Definition: _resample() in upfirdn2d.py.
 *
 * A thread makes one pixel, from those taps alone that meet no inserted zero. Factors and the filter's size are known
 * when it is compiled, so that the loops unroll. Neighbouring threads have neighbouring pixels, or channels where they
 * are last in memory. The gradient is the same kernel with up and down exchanged.
 */
#include "kernel.cuh"

#define REACH(taps, up) (((taps) + (up) - 1) / (up)) /* pixels of one axis that a filter meets, at most */

/* Mirrored by _Job in upfirdn2d.py. */
typedef struct {
    const element *x;
    const float *f; /* [TAPS_Y, TAPS_X] */
    element *y;
    long long step_n, step_c, step_h, step_w; /* strides of x, in numbers */
    unsigned count, channels, out_h, out_w;   /* pixels of y in all channels, ... */
    int in_h, in_w, before_y, before_x, channels_last;
} Job;

/* The first pixel that the filter meets at output pixel `at`. Its tap is *tap; each further pixel's is `up` more. */
INLINE int first_met(int at, int before, int up, int *tap) {
    int start = at - before, first = start > 0 ? (start + up - 1) / up : 0;
    *tap = first * up - start;
    return first;
}

KERNEL(upfirdn2d) {
    const unsigned long long at = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= job.count) return;
    unsigned rest = (unsigned)at, c = 0;
    if (job.channels_last) c = rest % job.channels, rest /= job.channels;
    const int column = rest % job.out_w, row = rest / job.out_w % job.out_h;
    rest = rest / job.out_w / job.out_h;
    if (!job.channels_last) c = rest % job.channels, rest /= job.channels;

    int tap_y, tap_x;
    const int top = first_met(row * DOWN_Y, job.before_y, UP_Y, &tap_y);
    const int left = first_met(column * DOWN_X, job.before_x, UP_X, &tap_x);
    const element *image = job.x + rest * job.step_n + c * job.step_c;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < REACH(TAPS_Y, UP_Y); j++) {
        const int ty = tap_y + j * UP_Y;
        if (ty >= TAPS_Y || top + j >= job.in_h) break;
        const element *line = image + (top + j) * job.step_h;
        const float *taps = job.f + (TAPS_Y - 1 - ty) * TAPS_X;
#pragma unroll
        for (int i = 0; i < REACH(TAPS_X, UP_X); i++) {
            const int tx = tap_x + i * UP_X;
            if (tx < TAPS_X && left + i < job.in_w) sum += taps[TAPS_X - 1 - tx] * widen(line[(left + i) * job.step_w]);
        }
    }
    job.y[at] = narrow(sum);
}

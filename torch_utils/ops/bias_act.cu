/* clamp(gain f(x + b)), and its derivative times a gradient. Definition: bias_act() in bias_act.py.
 *
 * What is read and written once is all that counts: 8 bytes a number in single precision forward, 12 backward. A thread
 * takes PER_THREAD numbers, a block's width apart. What is no number stays so.
 */
#include "kernel.cuh"

#define PER_THREAD 4

enum { LINEAR, RELU, LRELU, TANH, SIGMOID, ELU, SELU, SOFTPLUS, SWISH }; /* the order of ACTIVATIONS */

/* Mirrored by _Job in bias_act.py. */
typedef struct {
    const element *x, *b, *grad;    /* b: one for each channel, or null. Up to LRELU, backward has the result as x */
    element *out;
    unsigned count, step, channels; /* numbers; from one channel to the next; channels */
    int act;
    float alpha, gain, clamp; /* clamp < 0: none */
} Job;

/* f(x) and its slope. */
INLINE float activate(int act, float x, float alpha, float *slope) {
    const float scale = 1.0507009873554805f, depth = 1.6732632423543772f;
    float y;
    switch (act) {
    case RELU: *slope = x > 0 ? 1.0f : 0.0f; return x < 0 ? 0.0f : x;
    case LRELU: *slope = x > 0 ? 1.0f : alpha; return x > 0 ? x : alpha * x;
    case TANH: y = tanhf(x); *slope = 1 - y * y; return y;
    case SIGMOID: y = 1 / (1 + expf(-x)); *slope = y * (1 - y); return y;
    case ELU: *slope = x > 0 ? 1.0f : expf(x); return x > 0 ? x : expm1f(x);
    case SELU: *slope = scale * (x > 0 ? 1.0f : depth * expf(x)); return scale * (x > 0 ? x : depth * expm1f(x));
    case SOFTPLUS:
        *slope = x > 80 ? 1.0f : 1 / (1 + expf(-x));
        return x > 80 ? x : fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    case SWISH: y = 1 / (1 + expf(-x)); *slope = y * (1 + x * (1 - y)); return x * y;
    default: *slope = 1; return x;
    }
}

INLINE float biased(const Job &job, unsigned i) {
    float x = widen(job.x[i]);
    return job.b ? x + widen(job.b[i / job.step % job.channels]) : x;
}

KERNEL(bias_act_forward) {
    for (int k = 0; k < PER_THREAD; k++) {
        unsigned long long at = ((unsigned long long)blockIdx.x * PER_THREAD + k) * blockDim.x + threadIdx.x;
        if (at >= job.count) return;
        float slope, y = activate(job.act, biased(job, at), job.alpha, &slope) * job.gain;
        if (job.clamp >= 0) y = y > job.clamp ? job.clamp : y < -job.clamp ? -job.clamp : y;
        job.out[at] = narrow(y);
    }
}

KERNEL(bias_act_backward) {
    for (int k = 0; k < PER_THREAD; k++) {
        unsigned long long at = ((unsigned long long)blockIdx.x * PER_THREAD + k) * blockDim.x + threadIdx.x;
        if (at >= job.count) return;
        float slope, x = biased(job, at), y = activate(job.act, x, job.alpha, &slope) * job.gain;
        if (job.act <= LRELU) y = x; /* which has the sign of what it came from */
        int stopped = job.clamp >= 0 && (y >= job.clamp || y <= -job.clamp);
        job.out[at] = narrow(stopped ? 0.0f : widen(job.grad[at]) * (slope * job.gain));
    }
}

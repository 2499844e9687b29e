/* Weighted sums over the samples of rays, and their gradient. Definition: sum_twin() in weighted_sum.py.
 *
 * [rays, samples] weights, [rays, samples, channels] values; all contiguous. Both return 0.
 */
#include <stdint.h>

int sum_forward(int64_t rays, int64_t samples, int64_t channels, const float *restrict weights,
                 const float *restrict values, float *restrict out) {
#pragma omp parallel for schedule(static)
    for (int64_t ray = 0; ray < rays; ray++) {
        float *sum = out + ray * channels;
        for (int64_t c = 0; c < channels; c++) sum[c] = 0;
        for (int64_t s = ray * samples; s < (ray + 1) * samples; s++)
            for (int64_t c = 0; c < channels; c++) sum[c] += weights[s] * values[s * channels + c];
    }
    return 0;
}

int sum_backward(int64_t rays, int64_t samples, int64_t channels, const float *restrict weights,
                  const float *restrict values, const float *restrict grad, float *restrict grad_weights,
                  float *restrict grad_values) {
#pragma omp parallel for schedule(static)
    for (int64_t ray = 0; ray < rays; ray++) {
        const float *g = grad + ray * channels;
        for (int64_t s = ray * samples; s < (ray + 1) * samples; s++) {
            const float weight = weights[s];
            float product = 0;
#pragma omp simd reduction(+ : product)
            for (int64_t c = 0; c < channels; c++) {
                product += g[c] * values[s * channels + c];
                grad_values[s * channels + c] = weight * g[c];
            }
            grad_weights[s] = product;
        }
    }
    return 0;
}

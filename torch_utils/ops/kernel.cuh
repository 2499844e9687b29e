/* What all CUDA texts share: how a kernel is written, and numbers of half precision in memory.
 *
 * No header of a toolkit or of torch is needed. tests/ops/emulator.h defines the same words for a CPU (EMULATED).
 * A text declares `Job`, the one argument of all its kernels, which a ctypes.Structure mirrors.
 */
#ifndef EMULATED
#define KERNEL(name) extern "C" __global__ void name(const Job job)
#define INLINE static __device__ __forceinline__
#endif

/* `element` is how numbers lie in memory; arithmetic is in float. ELEMENT: 0 float, 1 half, 2 bfloat16. */
#ifndef ELEMENT
#define ELEMENT 0
#endif
#if ELEMENT == 0
typedef float element;
INLINE float widen(element x) { return x; }
INLINE element narrow(float x) { return x; }
#else
typedef unsigned short element;
#if ELEMENT == 2
INLINE float widen(element x) { return __uint_as_float((unsigned)x << 16); }
INLINE element narrow(float x) { /* to the nearest, ties to even */
    unsigned bits = __float_as_uint(x);
    return x != x ? 0x7fff : (element)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#elif !defined(EMULATED)
INLINE float widen(element x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
INLINE element narrow(float x) {
    element y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
#endif
#endif

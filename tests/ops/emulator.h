// The words of CUDA texts for a CPU, so that tests can run them where there is no GPU: blocks one after another, the
// threads of a block as fibers that take turns at barriers. Included before a text (g++ -x c++ -include emulator.h).
// Threads that wait for others who never come end the process with a sentence.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <vector>

#define EMULATED
#define INLINE static inline
#define __shared__ static  // one block at a time
#define KERNEL(name)                                                                              \
    static void name##_thread(const Job job);                                                     \
    extern "C" void name(const void *job, unsigned blocks, unsigned threads, int backwards) {     \
        emulate([&] { name##_thread(*(const Job *)job); }, blocks, threads, backwards);           \
    }                                                                                             \
    static void name##_thread(const Job job)

struct Index { unsigned x; };
static Index blockIdx, threadIdx, blockDim, gridDim;

enum Turn { READY, AT_WARP, AT_BLOCK, DONE };
struct Fiber {
    std::vector<char> stack = std::vector<char>(1 << 18);
    ucontext_t start;
    jmp_buf place;
    bool begun;
    Turn state;
};
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static std::function<void()> body;
static float told[1024];

static void run_body() {
    body();
    fibers[threadIdx.x].state = DONE;
    _longjmp(scheduler, 1);
}

static void wait_as(Turn state) {
    Fiber &fiber = fibers[threadIdx.x];
    fiber.state = state;
    if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}
static void __syncthreads() { wait_as(AT_BLOCK); }
static void __syncwarp() { wait_as(AT_WARP); }

static float __shfl_xor_sync(unsigned, float value, int mask) {
    const unsigned mine = threadIdx.x;
    told[mine] = value;
    __syncwarp();
    value = told[mine ^ mask];
    __syncwarp();
    return value;
}

static float atomicAdd(float *address, float value) {
    float before = *address;
    *address += value;
    return before;
}

static void resume(unsigned thread) {
    Fiber &fiber = fibers[thread];
    threadIdx.x = thread;
    fiber.state = READY;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
}

// Let threads first to last - 1 go on to the next barrier, if all of them wait at such a one.
static bool advance(unsigned first, unsigned last, Turn state, bool backwards) {
    for (unsigned i = first; i < last; i++)
        if (fibers[i].state != state) return false;
    for (unsigned i = first; i < last; i++) resume(backwards ? last - 1 - (i - first) : i);
    return true;
}

static void emulate(std::function<void()> kernel, unsigned blocks, unsigned threads, bool backwards) {
    body = kernel;
    gridDim.x = blocks, blockDim.x = threads;
    if (fibers.size() < threads) fibers.resize(threads);
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (unsigned i = 0; i < threads; i++) {
            getcontext(&fibers[i].start);
            fibers[i].start.uc_stack.ss_sp = fibers[i].stack.data();
            fibers[i].start.uc_stack.ss_size = fibers[i].stack.size();
            makecontext(&fibers[i].start, run_body, 0);
            fibers[i].begun = false, fibers[i].state = READY;
        }
        for (bool moved = true; moved;) {
            moved = advance(0, threads, AT_BLOCK, backwards);
            for (unsigned first = 0; first < threads; first += 32) {
                unsigned last = first + 32 < threads ? first + 32 : threads;
                moved |= advance(first, last, READY, backwards) || advance(first, last, AT_WARP, backwards);
            }
        }
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].state != DONE) {
                fprintf(stderr, "thread %u of block %u waits for others who never come\n", i, blockIdx.x);
                abort();
            }
    }
}

static inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
#if defined(ELEMENT) && ELEMENT == 1
static inline float widen(unsigned short x) { _Float16 y; memcpy(&y, &x, 2); return (float)y; }
static inline unsigned short narrow(float x) { _Float16 y = x; unsigned short z; memcpy(&z, &y, 2); return z; }
#endif

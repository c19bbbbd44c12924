// Runs CUDA C++ kernels on the CPU: blocks one after another, the threads of a block as fibres that change at __syncthreads().
// Blocks and threads take turns in a chosen order: forward, backward or shuffled. A kernel without races gives the same result
// in every order, so that a missing barrier shows as a difference.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define METHOD inline
#define __launch_bounds__(...)
#define __shared__ static
#define DYNAMIC_SHARED(name) float4* const name = (float4*)emulation::dynamic_shared

struct dim3 { int x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;
using std::max;
using std::min;
template <class T> static T atomicAdd(T* at, T value) { T before = *at; *at += value; return before; }
template <class T> static T __ldcg(const T* at) { return *at; }
template <class T> static void __stcg(T* at, T value) { *at = value; }
static inline void __threadfence() {}
#define HALF_PAIRS
static inline unsigned half_pair(float low, float high) {
  const _Float16 pair[2] = {(_Float16)low, (_Float16)high};  // rounds to nearest even, as cvt.rn does
  unsigned bits;
  memcpy(&bits, pair, 4);
  return bits;
}
static inline float half_of(unsigned bits, int which) {
  _Float16 pair[2];
  memcpy(pair, &bits, 4);
  return pair[which];
}
static inline uint32_t __float_as_uint(float value) { uint32_t bits; memcpy(&bits, &value, 4); return bits; }

namespace emulation {

enum Failure { none = 0, diverged_barrier = 1, barrier_without_fibres = 2, beyond_shared_memory = 3 };

static const size_t stack_bytes = 128 << 10;

// A thread of a block, on a stack of its own. It is made once and then runs a kernel body per block. Switching by setjmp and
// longjmp saves the system calls of swapcontext, which only enters a fresh fibre.
struct Fibre {
  ucontext_t context;
  jmp_buf paused;
  dim3 id;
  bool made = false, done = false;
  std::unique_ptr<char[]> stack;
};

static std::vector<Fibre> fibres;
static Fibre* running;  // null outside a kernel that is run by fibres
static jmp_buf scheduler;
static ucontext_t home;
static const std::function<void()>* body;
static int failure;

// The memory of a block whose size the launch gives, at a multiple of 16 bytes and poisoned, with a guard behind it.
static unsigned char* dynamic_shared;
static const size_t guard_bytes = 4096;
static std::vector<float4> shared_memory;

static void poison_shared(size_t bytes) {
  shared_memory.resize((bytes + guard_bytes) / sizeof(float4) + 1);
  dynamic_shared = (unsigned char*)shared_memory.data();
  memset(dynamic_shared, 0xff, bytes + guard_bytes);
}

static void check_shared(size_t bytes) {
  if (std::any_of(dynamic_shared + bytes, dynamic_shared + bytes + guard_bytes, [](unsigned char byte) { return byte != 0xff; }))
    failure = beyond_shared_memory;
}

static void live() {
  for (;;) {
    (*body)();
    running->done = true;
    if (!_setjmp(running->paused)) _longjmp(scheduler, 1);
  }
}

static void resume(Fibre& fibre) {
  running = &fibre;
  threadIdx = fibre.id;
  if (_setjmp(scheduler)) return;
  if (fibre.made) _longjmp(fibre.paused, 1);
  fibre.made = true;
  fibre.stack.reset(new char[stack_bytes]);
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.get(), fibre.context.uc_stack.ss_size = stack_bytes, fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, live, 0);
  swapcontext(&home, &fibre.context);
}

static void sync() {
  if (!running) { failure = barrier_without_fibres; return; }
  if (!_setjmp(running->paused)) _longjmp(scheduler, 1);
  threadIdx = running->id;
}

// order 0: forward, 1: backward, more: shuffled for every block, by this seed.
static std::vector<int> turns(int count, int order, std::mt19937& random) {
  std::vector<int> turns(count);
  std::iota(turns.begin(), turns.end(), 0);
  if (order == 1) std::reverse(turns.begin(), turns.end());
  if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
  return turns;
}

static int launch(dim3 grid, dim3 block, int shared_bytes, int order, bool has_barriers, const std::function<void()>& kernel) {
  std::mt19937 random(order);
  const int num_threads = block.x * block.y * block.z;
  failure = none, body = &kernel, gridDim = grid, blockDim = block;
  if (has_barriers && (int)fibres.size() < num_threads) fibres = std::vector<Fibre>(num_threads);
  for (int b : turns(grid.x * grid.y * grid.z, order, random)) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    const std::vector<int> threads = turns(num_threads, order, random);
    if (!has_barriers) {
      for (int t : threads) {
        threadIdx = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
        kernel();
      }
      continue;
    }
    poison_shared(shared_bytes);
    for (int t : threads) fibres[t].id = {t % block.x, t / block.x % block.y, t / (block.x * block.y)}, fibres[t].done = false;
    for (int num_live = num_threads; num_live;) {  // from one barrier to the next
      const int before = num_live;
      num_live = 0;
      for (int t : threads) if (!fibres[t].done) resume(fibres[t]), num_live += !fibres[t].done;
      if (num_live && num_live != before) failure = diverged_barrier;
    }
    running = nullptr;
    check_shared(shared_bytes);
  }
  return failure;
}

}  // namespace emulation

static inline void __syncthreads() { emulation::sync(); }

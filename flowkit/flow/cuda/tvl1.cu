// TV-L1 optical flow of a batch of frame pairs: every step of the solver as a kernel. batch.py launches them.
//
// C. Zach, T. Pock, H. Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007; the letters are those of
// J. Sanchez, E. Meinhardt-Llopis, G. Facciolo, "TV-L1 optical flow estimation", IPOL 2013, doi:10.5201/ipol.2013.26.
// The order of operations and the borders are those of OpenCV's CPU class DualTVL1OpticalFlow; the arithmetic is float32 with
// fused multiply-adds.
//
// NVRTC compiles this file without any header; a host compiler compiles it with the tests' host_emulation.h. ALL_BUT_ITERATE and
// ONLY_ITERATE select a part: `iterate` is compiled for several shapes of its blocks, everything else once.
//
// Memory, for at most N pairs (`capacity`) and a level of w x h pixels:
//   images     float   [frame][h][w]          one array per pyramid level
//   gradients  float4  [frame][h][w]          (I, Ix, Iy, 0), so that a tap of the warp is one 16-byte load
//   flow       float   [2 halves][N][2][stride]   u, v
//   data       float   [N][3][stride]             I1wx, I1wy, rho_c
//   dual       float   [2 halves][N][4][stride]   theta * (p11, p12, p21, p22)
// The planes of `flow`, `data` and `dual` are padded: their rows have `pitch` floats, which is w rounded up to a multiple of 4, and
// the image is at the right end, so that its right border lies on a 16-byte boundary. X counts padded columns: X = x + pitch - w.
// `stride` is the size of a plane of the finest level, for every level, so that pairs never overlap while a level replaces a
// coarser one.
//
// Pairs that still iterate. Launch number s of `iterate` (`sequence`) works on the pairs in list s % 3 and appends those that have
// not converged to list (s + 1) % 3, while the counter of list (s + 2) % 3 is cleared for the next launch. No list is both read and
// written in one launch, and the host need not know the counts: it launches ahead, and the blocks take the pairs in the list. Most
// launches find few pairs left or none, so `iterate` has about as many blocks as the GPU runs at once, and each takes many tiles.

#ifndef THREADS_X  // a block of `iterate`: THREADS_X x THREADS_Y threads, each with a patch of 4 columns and ROWS rows in registers
#define THREADS_X 16
#define THREADS_Y 8
#define ROWS 4  // or 2 or 1: fewer registers, but more to exchange
#define BLOCKS_PER_SM 2
#define SHARED_CONSTANTS 0  // 1: what is constant during a launch lies in shared memory, which leaves registers for more threads
#define HALF_DUAL 0         // 1: p is kept in half precision during a launch, two values in a register
#endif
#ifndef METHOD  // what stands before the method of a struct; the host's emulation has its own
#define METHOD __device__ __forceinline__
#endif
#ifndef DYNAMIC_SHARED  // memory of a block whose size the launch gives; the host's emulation has its own
#define DYNAMIC_SHARED(name) extern __shared__ float4 name[]
#endif
#define THREADS (THREADS_X * THREADS_Y)
#define TILE_WIDTH (4 * THREADS_X)
#define TILE_HEIGHT (ROWS * THREADS_Y)
#define UNROLL _Pragma("unroll")

// Bits of the state of a pair: which half of `flow` and of `dual` is the newest, and whether dual is still zero everywhere.
#define FLOW_HALF 1
#define DUAL_HALF 2
#define DUAL_IS_ZERO 4

__device__ __forceinline__ int pitch_of(int width) { return (width + 3) & ~3; }

__device__ __forceinline__ float* flow_of(float* flow, int half, int capacity, int pair, int stride) {
  return flow + ((long long)half * capacity + pair) * 2 * stride;
}

__device__ __forceinline__ float* dual_of(float* dual, int half, int capacity, int pair, int stride) {
  return dual + ((long long)half * capacity + pair) * 4 * stride;
}

__device__ __forceinline__ int clamped(int i, int size) { return min(max(i, 0), size - 1); }

#ifndef ONLY_ITERATE

// ---- Pyramid -------------------------------------------------------------------------------------------------------------

// Level 0 of the pyramid. Reads 1 byte per pixel and writes 4, once per frame.
extern "C" __global__ void load_frames(int width, int height, const unsigned char* frames, float* image) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const long long at = ((long long)blockIdx.z * height + y) * width + x;
  image[at] = frames[at];
}

struct Between { int low, high; float weight; };  // sample = (1 - weight) * at[low] + weight * at[high]

// The bilinear sampling position of pixel `i`, with half-pixel centres, clamped at the borders.
__device__ __forceinline__ Between sample_at(int i, float step, int size) {
  const float position = fminf(fmaxf((i + .5f) * step - .5f, 0.f), size - 1.f);
  const int low = (int)position;
  return {low, min(low + 1, size - 1), position - low};
}

__device__ __forceinline__ float mix(float a, float b, float weight) { return a + weight * (b - a); }

__device__ __forceinline__ float bilinear(const float* image, int pitch, Between x, Between y) {
  const float top = mix(image[y.low * pitch + x.low], image[y.low * pitch + x.high], x.weight);
  const float bottom = mix(image[y.high * pitch + x.low], image[y.high * pitch + x.high], x.weight);
  return mix(top, bottom, y.weight);
}

// A level of the pyramid from the finer one, as cv2.resize(fx = fy = 1 / step, INTER_LINEAR) computes it.
// Reads 4 * step^2 bytes per pixel and writes 4, once per frame.
extern "C" __global__ void shrink(int width, int height, int source_width, int source_height, float step, const float* source,
                                  float* image) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  source += (long long)blockIdx.z * source_width * source_height;
  image[((long long)blockIdx.z * height + y) * width + x] =
      bilinear(source, source_width, sample_at(x, step, source_width), sample_at(y, step, source_height));
}

// The image of a level with its centred differences, which are halved at the borders as in OpenCV. Reads 4 bytes per pixel and
// writes 16, once per frame and level.
extern "C" __global__ void differentiate(int width, int height, const float* image, float4* gradients) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const long long frame = (long long)blockIdx.z * height * width;
  const float* row = image + frame + y * width;
  const float* column = image + frame + x;
  gradients[frame + y * width + x] =
      make_float4(row[x], .5f * (row[clamped(x + 1, width)] - row[clamped(x - 1, width)]),
                  .5f * (column[clamped(y + 1, height) * width] - column[clamped(y - 1, height) * width]), 0.f);
}

// The initial flow of a level, in the other half of `flow`: that of the coarser level, resized and multiplied by `gain`, or zero if
// there is none (source_width 0). Reads 8 / scale^2 bytes per pixel and writes 8, once per pair and level.
extern "C" __global__ void expand_flow(int width, int height, int source_width, int source_height, int capacity, int stride,
                                       float step_x, float step_y, float gain, float* flow, const int* state) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, pair = blockIdx.z;
  if (x >= width || y >= height) return;
  const int half = state[pair] & FLOW_HALF ? 1 : 0, pitch = pitch_of(width), source_pitch = pitch_of(source_width);
  const float* source = flow_of(flow, half, capacity, pair, stride) + source_pitch - source_width;
  float* target = flow_of(flow, half ^ 1, capacity, pair, stride) + y * pitch + pitch - width + x;
  float u = 0, v = 0;
  if (source_width) {
    const Between bx = sample_at(x, step_x, source_width), by = sample_at(y, step_y, source_height);
    u = gain * bilinear(source, source_pitch, bx, by), v = gain * bilinear(source + stride, source_pitch, bx, by);
  }
  target[0] = u, target[stride] = v;
}

// ---- Warp ----------------------------------------------------------------------------------------------------------------

// One thread per pair: all pairs iterate again. At the beginning of a level, expand_flow has written its flow, and dual is zero.
extern "C" __global__ void start_warp(int num_pairs, int capacity, int sequence, int level_begins, int* state, int* lists,
                                      int* counts) {
  const int pair = blockIdx.x * blockDim.x + threadIdx.x, now = sequence % 3, next = (sequence + 1) % 3;
  if (pair >= num_pairs) return;
  lists[now * capacity + pair] = pair;
  if (level_begins) state[pair] = ((state[pair] & FLOW_HALF) ^ FLOW_HALF) | DUAL_IS_ZERO;
  if (pair == 0) counts[now] = num_pairs, counts[next] = 0;
}

// The weights of cubic convolution with a = -0.75, as in cv2.INTER_CUBIC, for the fraction t in [0, 1).
__device__ __forceinline__ void cubic_weights(float t, float* weights) {
  const float a = -.75f, s = 1 - t, q = t + 1;
  weights[0] = ((a * q - 5 * a) * q + 8 * a) * q - 4 * a;
  weights[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
  weights[2] = ((a + 2) * s - (a + 3)) * s * s + 1;
  weights[3] = 1 - weights[0] - weights[1] - weights[2];
}

// I1 and its gradient at x + u(x), which are zero outside the image, and from them the constants of the data term:
// rho_c = I1w - I1wx * u1 - I1wy * u2 - I0. Reads 12 bytes per pixel and 16 taps of 16 bytes (about 16 to 32 bytes of memory traffic
// behind the caches) and writes 12, once per pair and warp.
extern "C" __global__ void warp(int width, int height, int capacity, int stride, const float* image, const float4* gradients,
                                const int2* pairs, float* flow, const int* state, float* data) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, pair = blockIdx.z;
  if (x >= width || y >= height) return;
  const int2 frames = pairs[pair];
  const int pitch = pitch_of(width), at = y * pitch + pitch - width + x;
  const float* newest = flow_of(flow, state[pair] & FLOW_HALF ? 1 : 0, capacity, pair, stride);
  const float u = newest[at], v = newest[stride + at];
  const float px = x + u, py = y + v, floor_x = floorf(px), floor_y = floorf(py);
  float weights_x[4], weights_y[4];
  cubic_weights(px - floor_x, weights_x), cubic_weights(py - floor_y, weights_y);
  // Clamped before the conversion: a position far outside stays outside and does not overflow.
  const int left = (int)fminf(fmaxf(floor_x, -9.f), width + 9.f) - 1, top = (int)fminf(fmaxf(floor_y, -9.f), height + 9.f) - 1;
  const float4* source = gradients + (long long)frames.y * height * width;
  float warped = 0, warped_x = 0, warped_y = 0;
  UNROLL for (int j = 0; j < 4; j++) if (top + j >= 0 && top + j < height)
    UNROLL for (int i = 0; i < 4; i++) if (left + i >= 0 && left + i < width) {
      const float4 tap = source[(top + j) * width + left + i];
      const float weight = weights_y[j] * weights_x[i];
      warped = fmaf(weight, tap.x, warped), warped_x = fmaf(weight, tap.y, warped_x), warped_y = fmaf(weight, tap.z, warped_y);
    }
  const float first = image[((long long)frames.x * height + y) * width + x];
  float* target = data + (long long)pair * 3 * stride + at;
  target[0] = warped_x, target[stride] = warped_y;
  target[2 * stride] = warped - warped_x * u - warped_y * v - first;
}

// ---- Median --------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void sort_two(float& a, float& b) {
  const float low = fminf(a, b);
  b = fmaxf(a, b), a = low;
}

__device__ __forceinline__ void sort_four(float& a, float& b, float& c, float& d) {
  sort_two(a, b), sort_two(c, d), sort_two(a, c), sort_two(b, d), sort_two(b, c);
}

// Sixty exchanges in ten layers, the fewest known; the tests check all 65536 inputs of zeros and ones.
__device__ __forceinline__ void sort_sixteen(float* s) {
#define SORT(a, b) sort_two(s[a], s[b]);
  SORT(0, 13) SORT(1, 12) SORT(2, 15) SORT(3, 14) SORT(4, 8) SORT(5, 6) SORT(7, 11) SORT(9, 10)
  SORT(0, 5) SORT(1, 7) SORT(2, 9) SORT(3, 4) SORT(6, 13) SORT(8, 14) SORT(10, 15) SORT(11, 12)
  SORT(0, 1) SORT(2, 3) SORT(4, 5) SORT(6, 8) SORT(7, 9) SORT(10, 11) SORT(12, 13) SORT(14, 15)
  SORT(0, 2) SORT(1, 3) SORT(4, 10) SORT(5, 11) SORT(6, 7) SORT(8, 9) SORT(12, 14) SORT(13, 15)
  SORT(1, 2) SORT(3, 12) SORT(4, 6) SORT(5, 7) SORT(8, 10) SORT(9, 11) SORT(13, 14)
  SORT(1, 4) SORT(2, 6) SORT(5, 8) SORT(7, 10) SORT(9, 13) SORT(11, 14)
  SORT(2, 4) SORT(3, 6) SORT(9, 12) SORT(11, 13)
  SORT(3, 5) SORT(6, 8) SORT(7, 9) SORT(10, 12)
  SORT(3, 4) SORT(5, 6) SORT(7, 8) SORT(9, 10) SORT(11, 12)
  SORT(6, 7) SORT(8, 9)
#undef SORT
}

// Element k (from 0; at least 4) of the merged lists a[0..k] and b[0..3], both sorted: j of the k + 1 smallest come from b.
__device__ __forceinline__ float merged(int k, const float* a, const float* b) {
  float result = a[k];
  UNROLL for (int j = 1; j <= 4; j++) result = fminf(result, fmaxf(a[k - j], b[j - 1]));
  return result;
}

struct Halves { const float* newest; float* other; };

// The planes that a median reads and writes: `z` counts u and v of every listed pair. `iterate` then reads the other half.
__device__ __forceinline__ bool listed(int z, int sequence, int capacity, int stride, float* flow, const int* state,
                                       const int* lists, const int* counts, Halves& halves) {
  const int now = sequence % 3, channel = z & 1;
  if (z >> 1 >= counts[now]) return false;
  const int pair = lists[now * capacity + (z >> 1)], half = state[pair] & FLOW_HALF ? 1 : 0;
  halves.newest = flow_of(flow, half, capacity, pair, stride) + channel * stride;
  halves.other = flow_of(flow, half ^ 1, capacity, pair, stride) + channel * stride;
  return true;
}

// 5x5 median of u and v with repeated borders; each thread computes 2 x 2 pixels from 6 x 6.
// The four windows share a core of 4 x 4 values, of which only those of rank 4 to 13 can be a median of 25. The row of four above (or
// below), which two windows share, leaves six candidates; the column of four beside leaves two, and the corner decides.
// This takes about 80 minima and maxima per pixel, and a selection network per pixel 250. Reads 9 words per pixel (8 bytes of memory
// traffic for u and v) and writes 8 bytes, once per pair and outer loop.
extern "C" __global__ void __launch_bounds__(256) median_5(int width, int height, int capacity, int stride, int sequence,
                                                          float* flow, const int* state, const int* lists, const int* counts) {
  Halves halves;
  if (!listed(blockIdx.z, sequence, capacity, stride, flow, state, lists, counts, halves)) return;
  const int x = 2 * (blockIdx.x * blockDim.x + threadIdx.x), y = 2 * (blockIdx.y * blockDim.y + threadIdx.y);
  if (x >= width || y >= height) return;
  const int pitch = pitch_of(width), shift = pitch - width;
  float s[6][6];
  UNROLL for (int j = 0; j < 6; j++) {
    const float* row = halves.newest + clamped(y + j - 2, height) * pitch + shift;
    UNROLL for (int i = 0; i < 6; i++) s[j][i] = row[clamped(x + i - 2, width)];
  }
  float core[16];
  UNROLL for (int i = 0; i < 16; i++) core[i] = s[1 + i / 4][1 + i % 4];
  sort_sixteen(core);
  sort_four(s[1][0], s[2][0], s[3][0], s[4][0]), sort_four(s[1][5], s[2][5], s[3][5], s[4][5]);
  UNROLL for (int dy = 0; dy < 2; dy++) {
    float* row = s[dy ? 5 : 0];
    sort_four(row[1], row[2], row[3], row[4]);
    float middle[6];
    UNROLL for (int k = 0; k < 6; k++) middle[k] = merged(4 + k, core + 3, row + 1);
    UNROLL for (int dx = 0; dx < 2; dx++) {
      const int column = dx ? 5 : 0;
      const float beside[4] = {s[1][column], s[2][column], s[3][column], s[4][column]};
      const float median = fmaxf(merged(4, middle, beside), fminf(merged(5, middle, beside), row[column]));
      if (x + dx < width && y + dy < height) halves.other[(y + dy) * pitch + shift + x + dx] = median;
    }
  }
}

// 3x3 median of u and v with repeated borders: the columns are sorted, then follows the median of (largest low, median of the middles,
// smallest high).
extern "C" __global__ void __launch_bounds__(256) median_3(int width, int height, int capacity, int stride, int sequence,
                                                          float* flow, const int* state, const int* lists, const int* counts) {
  Halves halves;
  if (!listed(blockIdx.z, sequence, capacity, stride, flow, state, lists, counts, halves)) return;
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const int pitch = pitch_of(width), shift = pitch - width;
  float s[3][3];
  UNROLL for (int i = 0; i < 3; i++) {
    const float* column = halves.newest + shift + clamped(x + i - 1, width);
    UNROLL for (int j = 0; j < 3; j++) s[i][j] = column[clamped(y + j - 1, height) * pitch];
    sort_two(s[i][0], s[i][1]), sort_two(s[i][1], s[i][2]), sort_two(s[i][0], s[i][1]);
  }
  float low = fmaxf(fmaxf(s[0][0], s[1][0]), s[2][0]), high = fminf(fminf(s[0][2], s[1][2]), s[2][2]);
  float middle = fmaxf(fminf(s[0][1], s[1][1]), fminf(fmaxf(s[0][1], s[1][1]), s[2][1]));
  sort_two(low, middle), sort_two(middle, high), sort_two(low, middle);
  halves.other[y * pitch + shift + x] = middle;
}

#endif
#ifndef ALL_BUT_ITERATE

// ---- Iterations ----------------------------------------------------------------------------------------------------------

// Four values of p in a row, which are read by [i].
#if HALF_DUAL
#ifndef HALF_PAIRS  // the host's emulation has its own
__device__ __forceinline__ unsigned half_pair(float low, float high) {
  unsigned pair;
  asm("{ .reg .f16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b}; }" : "=r"(pair) : "f"(low), "f"(high));
  return pair;
}
__device__ __forceinline__ float half_of(unsigned pair, int which) {
  float value;
  if (which) asm("{ .reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, b; }" : "=f"(value) : "r"(pair));
  else asm("{ .reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a; }" : "=f"(value) : "r"(pair));
  return value;
}
#endif
struct DualRow {
  unsigned pairs[2];
  METHOD float operator[](int i) const { return half_of(pairs[i >> 1], i & 1); }
};
__device__ __forceinline__ void put(DualRow& row, int i, float left, float right) { row.pairs[i >> 1] = half_pair(left, right); }  // at an even i
__device__ __forceinline__ void clear_left(DualRow& row, int first_column) {
  UNROLL for (int i = 0; i < 4; i += 2) if (i < first_column) put(row, i, 0, i + 1 < first_column ? 0 : row[i + 1]);
}
__device__ __forceinline__ void clear(DualRow& row) { row.pairs[0] = row.pairs[1] = 0; }
#else
typedef float DualRow[4];
__device__ __forceinline__ void clear_left(DualRow& row, int first_column) { UNROLL for (int i = 0; i < 4; i++) if (i < first_column) row[i] = 0; }
__device__ __forceinline__ void clear(DualRow& row) { row[0] = row[1] = row[2] = row[3] = 0; }
#endif
struct Patch { float u[ROWS][4], v[ROWS][4]; DualRow p11[ROWS], p12[ROWS], p21[ROWS], p22[ROWS]; };

// What is constant during a launch: I1wx, I1wy, rho_c, and 1 / |I1w gradient|^2, row by row of a patch, in registers or in dynamic
// shared memory. There each thread reads only what it wrote itself, so this needs no barrier.
struct ConstantsRow { float gx[4], gy[4], rho[4], inverse[4]; };
#if SHARED_CONSTANTS
struct Constants { float4 gx[ROWS][THREADS], gy[ROWS][THREADS], rho[ROWS][THREADS], inverse[ROWS][THREADS]; };
#else
struct Constants { ConstantsRow rows[ROWS]; };
#endif

#if ROWS == 4
typedef float4 Column;
#elif ROWS == 2
typedef float2 Column;
#else
typedef float Column;
#endif

// The values that neighbouring threads exchange; one side of a patch is one vector. There is one slot more than threads, so that no
// thread has to test for the border of the tile: slot 0 of p (left of and above the tile) stays zero, and the last slot of u and v
// repeats the last column or row of the tile, which makes the forward difference zero. At the border of the image both values are
// correct; elsewhere they spoil one more pixel per iteration, for which the tiles overlap.
struct Edges {
  Column p11[THREADS_Y][THREADS_X + 1], p21[THREADS_Y][THREADS_X + 1], u_left[THREADS_Y][THREADS_X + 1], v_left[THREADS_Y][THREADS_X + 1];
  float4 p12[THREADS_Y + 1][THREADS_X], p22[THREADS_Y + 1][THREADS_X], u_top[THREADS_Y + 1][THREADS_X], v_top[THREADS_Y + 1][THREADS_X];
};

template <class Rows> __device__ __forceinline__ float4 row_of(const Rows& s, int j) { return make_float4(s[j][0], s[j][1], s[j][2], s[j][3]); }
#if ROWS == 4
template <class Rows> __device__ __forceinline__ Column column_of(const Rows& s, int i) { return make_float4(s[0][i], s[1][i], s[2][i], s[3][i]); }
#elif ROWS == 2
template <class Rows> __device__ __forceinline__ Column column_of(const Rows& s, int i) { return make_float2(s[0][i], s[1][i]); }
#else
template <class Rows> __device__ __forceinline__ Column column_of(const Rows& s, int i) { return s[0][i]; }
#endif
__device__ __forceinline__ void set_row(float (&s)[ROWS][4], int j, float4 q) { s[j][0] = q.x, s[j][1] = q.y, s[j][2] = q.z, s[j][3] = q.w; }
#if HALF_DUAL
__device__ __forceinline__ void set_row(DualRow (&s)[ROWS], int j, float4 q) { put(s[j], 0, q.x, q.y), put(s[j], 2, q.z, q.w); }
#endif
__device__ __forceinline__ void spread(float (&s)[4], float4 q) { s[0] = q.x, s[1] = q.y, s[2] = q.z, s[3] = q.w; }
__device__ __forceinline__ void spread(float (&s)[2], float2 q) { s[0] = q.x, s[1] = q.y; }
__device__ __forceinline__ void spread(float (&s)[1], float q) { s[0] = q; }

#if SHARED_CONSTANTS
__device__ __forceinline__ void put_row(Constants& constants, int j, int thread, const ConstantsRow& q) {
  constants.gx[j][thread] = make_float4(q.gx[0], q.gx[1], q.gx[2], q.gx[3]), constants.gy[j][thread] = make_float4(q.gy[0], q.gy[1], q.gy[2], q.gy[3]);
  constants.rho[j][thread] = make_float4(q.rho[0], q.rho[1], q.rho[2], q.rho[3]);
  constants.inverse[j][thread] = make_float4(q.inverse[0], q.inverse[1], q.inverse[2], q.inverse[3]);
}
__device__ __forceinline__ ConstantsRow get_row(const Constants& constants, int j, int thread) {
  ConstantsRow q;
  spread(q.gx, constants.gx[j][thread]), spread(q.gy, constants.gy[j][thread]);
  spread(q.rho, constants.rho[j][thread]), spread(q.inverse, constants.inverse[j][thread]);
  return q;
}
#else
__device__ __forceinline__ void put_row(Constants& constants, int j, int, const ConstantsRow& q) { constants.rows[j] = q; }
__device__ __forceinline__ const ConstantsRow& get_row(const Constants& constants, int j, int) { return constants.rows[j]; }
#endif

__device__ __forceinline__ void share_dual(const Patch& p, Edges& edges, int tx, int ty) {
  edges.p11[ty][tx + 1] = column_of(p.p11, 3), edges.p21[ty][tx + 1] = column_of(p.p21, 3);
  edges.p12[ty + 1][tx] = row_of(p.p12, ROWS - 1), edges.p22[ty + 1][tx] = row_of(p.p22, ROWS - 1);
}

// Keeps p zero at the pixels of a patch that lie left of the image or above it, where OpenCV treats p as zero. There u and v are zero,
// so that only the differences to the first pixels of the image can change p.
__device__ __forceinline__ void clear_dual_outside(Patch& p, int first_column, int first_row) {
  UNROLL for (int j = 0; j < ROWS; j++) {
    clear_left(p.p11[j], first_column), clear_left(p.p21[j], first_column);
    if (j < first_row) clear(p.p12[j]), clear(p.p22[j]);
  }
}

// (p11, p12, p21, p22) of a pixel after an iteration.
__device__ __forceinline__ float4 new_dual(const Patch& p, int j, int i, float tau, float tau_over_theta, const float (&right_u)[ROWS],
                                           const float (&right_v)[ROWS], const float (&below_u)[4], const float (&below_v)[4]) {
  const float ux = (i < 3 ? p.u[j][i < 3 ? i + 1 : 3] : right_u[j]) - p.u[j][i], uy = (j < ROWS - 1 ? p.u[j < ROWS - 1 ? j + 1 : j][i] : below_u[i]) - p.u[j][i];
  const float vx = (i < 3 ? p.v[j][i < 3 ? i + 1 : 3] : right_v[j]) - p.v[j][i], vy = (j < ROWS - 1 ? p.v[j < ROWS - 1 ? j + 1 : j][i] : below_v[i]) - p.v[j][i];
  const float norm_u = fmaf(tau_over_theta, sqrtf(fmaf(ux, ux, uy * uy)), 1.f), norm_v = fmaf(tau_over_theta, sqrtf(fmaf(vx, vx, vy * vy)), 1.f);
  const float both = 1.f / (norm_u * norm_v), shrink_u = both * norm_v, shrink_v = both * norm_u;  // one reciprocal for two
  return make_float4(fmaf(tau, ux, p.p11[j][i]) * shrink_u, fmaf(tau, uy, p.p12[j][i]) * shrink_u,
                     fmaf(tau, vx, p.p21[j][i]) * shrink_v, fmaf(tau, vy, p.p22[j][i]) * shrink_v);
}

// One iteration (algorithm 1 of the IPOL article): v = u + TH(u), u = v + theta div p, p = (p + tau/theta grad u) / (1 + tau/theta |grad u|).
// Returns the sum of the squared updates over the pixels in `counted` (bit 4j + i). There are two barriers: the sides of p are read
// between them, the sides of u after the second one, and each is written while the other is read.
template <bool WITH_ERROR>
__device__ __forceinline__ float iteration(Patch& p, const Constants& constants, Edges& edges, int tx, int ty, float lambda_theta, float tau, float tau_over_theta,
                                           int first_column, int first_row, unsigned counted) {
  float error = 0;
  __syncthreads();  // the sides of p have been written
  {
    float left_11[ROWS], left_21[ROWS], above_12[4], above_22[4];
    spread(left_11, edges.p11[ty][tx]), spread(left_21, edges.p21[ty][tx]);
    spread(above_12, edges.p12[ty][tx]), spread(above_22, edges.p22[ty][tx]);
    UNROLL for (int j = 0; j < ROWS; j++) {
      const ConstantsRow& c = get_row(constants, j, ty * THREADS_X + tx);
      UNROLL for (int i = 0; i < 4; i++) {
        const float rho = fmaf(c.gx[i], p.u[j][i], fmaf(c.gy[i], p.v[j][i], c.rho[i]));
        const float step = fminf(fmaxf(-rho * c.inverse[i], -lambda_theta), lambda_theta);
        const float div_u = (p.p11[j][i] - (i ? p.p11[j][i ? i - 1 : 0] : left_11[j])) + (p.p12[j][i] - (j ? p.p12[j ? j - 1 : 0][i] : above_12[i]));
        const float div_v = (p.p21[j][i] - (i ? p.p21[j][i ? i - 1 : 0] : left_21[j])) + (p.p22[j][i] - (j ? p.p22[j ? j - 1 : 0][i] : above_22[i]));
        const float update_u = fmaf(step, c.gx[i], div_u), update_v = fmaf(step, c.gy[i], div_v);
        p.u[j][i] += update_u, p.v[j][i] += update_v;
        if (WITH_ERROR && counted >> (4 * j + i) & 1) error = fmaf(update_u, update_u, fmaf(update_v, update_v, error));
      }
    }
  }
  edges.u_left[ty][tx] = column_of(p.u, 0), edges.v_left[ty][tx] = column_of(p.v, 0);
  edges.u_top[ty][tx] = row_of(p.u, 0), edges.v_top[ty][tx] = row_of(p.v, 0);
  if (tx == THREADS_X - 1) edges.u_left[ty][THREADS_X] = column_of(p.u, 3), edges.v_left[ty][THREADS_X] = column_of(p.v, 3);
  if (ty == THREADS_Y - 1) edges.u_top[THREADS_Y][tx] = row_of(p.u, ROWS - 1), edges.v_top[THREADS_Y][tx] = row_of(p.v, ROWS - 1);
  __syncthreads();  // the sides of u have been written
  {
    float right_u[ROWS], right_v[ROWS], below_u[4], below_v[4];
    spread(right_u, edges.u_left[ty][tx + 1]), spread(right_v, edges.v_left[ty][tx + 1]);
    spread(below_u, edges.u_top[ty + 1][tx]), spread(below_v, edges.v_top[ty + 1][tx]);
#if HALF_DUAL  // both values of a pair are computed before either is written
    UNROLL for (int j = 0; j < ROWS; j++) UNROLL for (int i = 0; i < 4; i += 2) {
      const float4 left = new_dual(p, j, i, tau, tau_over_theta, right_u, right_v, below_u, below_v);
      const float4 right = new_dual(p, j, i + 1, tau, tau_over_theta, right_u, right_v, below_u, below_v);
      put(p.p11[j], i, left.x, right.x), put(p.p12[j], i, left.y, right.y);
      put(p.p21[j], i, left.z, right.z), put(p.p22[j], i, left.w, right.w);
    }
#else
    UNROLL for (int j = 0; j < ROWS; j++) UNROLL for (int i = 0; i < 4; i++) {
      const float4 q = new_dual(p, j, i, tau, tau_over_theta, right_u, right_v, below_u, below_v);
      p.p11[j][i] = q.x, p.p12[j][i] = q.y, p.p21[j][i] = q.z, p.p22[j][i] = q.w;
    }
#endif
  }
  if (first_column > 0 || first_row > 0) clear_dual_outside(p, first_column, first_row);
  share_dual(p, edges, tx, ty);
  return error;
}

struct Span { int origin, low, high; };  // the first pixel of a tile, and the pixels [low, high) that it owns

// Tiles overlap by `halo` on each inner side. The last one ends at the border of the image, and begins before the image if the image
// is smaller than a tile.
__device__ __forceinline__ Span tile_span(int tile, int num_tiles, int size, int tile_size, int halo) {
  const int step = tile_size - 2 * halo;
  const bool last = tile == num_tiles - 1;
  return {last ? size - tile_size : tile * step, tile ? tile * step + halo : 0, last ? size : (tile + 1) * step + halo};
}

// The sum over the block, always in the same order, so that the same frames give the same bytes. Any number of threads.
__device__ __forceinline__ float block_sum(float value, float* scratch, int thread) {
  __syncthreads();
  scratch[thread] = value;
  for (int n = THREADS; n > 1; n = (n + 1) / 2) {
    const int half = (n + 1) / 2;
    __syncthreads();
    if (thread + half < n) scratch[thread] += scratch[thread + half];
  }
  __syncthreads();
  return scratch[0];
}

__device__ __forceinline__ float4 load_row(const float* plane, bool inside) {
  return inside ? *(const float4*)plane : make_float4(0, 0, 0, 0);
}

// Columns 0-1 and columns 2-3 of a row have the same owner, because tiles begin and end at even padded columns. The compiler would split
// plain vector stores here, so they are __stcg; no other block reads these values before the next launch.
__device__ __forceinline__ void store_row(float* plane, float4 q, bool left, bool right) {
  if (left && right) __stcg((float4*)plane, q);
  else if (left) __stcg((float2*)plane, make_float2(q.x, q.y));
  else if (right) __stcg((float2*)(plane + 2), make_float2(q.z, q.w));
}

// `num_iterations` iterations of every listed pair, tile by tile: the blocks, in one dimension, share the tiles of all pairs. After a
// median the newest flow is in the other half. Per pixel and launch, 36 bytes are read and 24 written, and the overlap is read twice;
// about 40 instructions per pixel and iteration, and two barriers per iteration.
// The block of a pair that finishes last decides its newest halves, and whether the pair iterates further.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
iterate(int width, int height, int capacity, int stride, int tiles_x, int tiles_y, int num_iterations, int halo_x, int halo_y,
        int after_median, int sequence, float lambda_theta, float tau, float tau_over_theta, float threshold, const float* data,
        float* dual, float* flow, int* state, int* lists, int* counts, int* arrivals, float* partial_errors,
        unsigned long long* progress) {
  DYNAMIC_SHARED(dynamic);
  Edges& edges = *(Edges*)dynamic;
  __shared__ bool is_last;
  const int tx = threadIdx.x, ty = threadIdx.y, thread = ty * THREADS_X + tx;
  const int now = sequence % 3, next = (sequence + 1) % 3, num_listed = counts[now];
  if (blockIdx.x == 0 && thread == 0) {
    counts[(sequence + 2) % 3] = 0;
    *(volatile unsigned long long*)progress = (unsigned long long)sequence << 32 | (unsigned)num_listed;  // the host's pinned memory
  }
  const int pitch = pitch_of(width), shift = pitch - width, num_tiles = tiles_x * tiles_y;
#pragma unroll 1
  for (int item = blockIdx.x; item < num_listed * num_tiles; item += gridDim.x) {
    const int slot = item / num_tiles, tile = item - slot * num_tiles, tile_y = tile / tiles_x, tile_x = tile - tile_y * tiles_x;
    const int pair = lists[now * capacity + slot], pair_state = state[pair];
    const int flow_half = (pair_state & FLOW_HALF ? 1 : 0) ^ (after_median ? 1 : 0), dual_half = pair_state & DUAL_HALF ? 1 : 0;
    const bool dual_is_zero = pair_state & DUAL_IS_ZERO;
    const Span across = tile_span(tile_x, tiles_x, pitch, TILE_WIDTH, halo_x), down = tile_span(tile_y, tiles_y, height, TILE_HEIGHT, halo_y);
    const int X = across.origin + 4 * tx, y = down.origin + ROWS * ty;  // the first pixel of the patch of this thread
    const int first_column = shift - X, first_row = -y;              // the first ones of the patch that lie in the image
    Patch p;
#if SHARED_CONSTANTS
    Constants& constants = *(Constants*)(dynamic + sizeof(Edges) / sizeof(float4));
#else
    Constants constants;
#endif
    {
      const float* p_old = dual_of(dual, dual_half, capacity, pair, stride);
      const float* u_old = flow_of(flow, flow_half, capacity, pair, stride);
      const float* warped = data + (long long)pair * 3 * stride;
      UNROLL for (int j = 0; j < ROWS; j++) {
        const bool inside = X >= 0 && y + j >= 0;
        const int at = (y + j) * pitch + X;
        set_row(p.u, j, load_row(u_old + at, inside)), set_row(p.v, j, load_row(u_old + stride + at, inside));
        ConstantsRow c;
        spread(c.gx, load_row(warped + at, inside)), spread(c.gy, load_row(warped + stride + at, inside));
        spread(c.rho, load_row(warped + 2 * stride + at, inside));
        UNROLL for (int i = 0; i < 4; i++) {
          if (i < first_column) c.gx[i] = c.gy[i] = c.rho[i] = 0;  // see below
          // If the gradient vanishes, this is huge, and the clipped step moves by lambda * theta * gradient, which is zero.
          c.inverse[i] = 1.f / fmaxf(fmaf(c.gx[i], c.gx[i], c.gy[i] * c.gy[i]), 1e-30f);
        }
        put_row(constants, j, thread, c);
        const bool with_dual = inside && !dual_is_zero;
        set_row(p.p11, j, load_row(p_old + at, with_dual)), set_row(p.p12, j, load_row(p_old + stride + at, with_dual));
        set_row(p.p21, j, load_row(p_old + 2 * stride + at, with_dual)), set_row(p.p22, j, load_row(p_old + 3 * stride + at, with_dual));
      }
    }
    if (first_column > 0) {  // the padding left of the image is never written, so nothing may be read from it
      UNROLL for (int j = 0; j < ROWS; j++) {
        UNROLL for (int i = 0; i < 4; i++) if (i < first_column) p.u[j][i] = p.v[j][i] = 0;
        clear_left(p.p11[j], first_column), clear_left(p.p12[j], first_column);
        clear_left(p.p21[j], first_column), clear_left(p.p22[j], first_column);
      }
    }
    __syncthreads();  // the sums of the last tile, which share memory with the edges, have been read
    if (tx == 0) edges.p11[ty][0] = edges.p21[ty][0] = Column();
    if (ty == 0) edges.p12[0][tx] = edges.p22[0][tx] = float4();
    share_dual(p, edges, tx, ty);

#pragma unroll 1
    for (int i = 1; i < num_iterations; i++) iteration<false>(p, constants, edges, tx, ty, lambda_theta, tau, tau_over_theta, first_column, first_row, 0);
    unsigned counted = 0;
    UNROLL for (int j = 0; j < ROWS; j++) UNROLL for (int i = 0; i < 4; i++)
      counted |= (unsigned)(X + i >= max(across.low, shift) && X + i < across.high && y + j >= down.low && y + j < down.high) << (4 * j + i);
    const float error = iteration<true>(p, constants, edges, tx, ty, lambda_theta, tau, tau_over_theta, first_column, first_row, counted);

    {
      float* p_new = dual_of(dual, dual_half ^ 1, capacity, pair, stride);
      float* u_new = flow_of(flow, flow_half ^ 1, capacity, pair, stride);
      const bool left = X >= across.low && X < across.high, right = X + 2 >= across.low && X + 2 < across.high;
      UNROLL for (int j = 0; j < ROWS; j++) if (y + j >= down.low && y + j < down.high) {
        const int at = (y + j) * pitch + X;
        store_row(u_new + at, row_of(p.u, j), left, right), store_row(u_new + stride + at, row_of(p.v, j), left, right);
        store_row(p_new + at, row_of(p.p11, j), left, right), store_row(p_new + stride + at, row_of(p.p12, j), left, right);
        store_row(p_new + 2 * stride + at, row_of(p.p21, j), left, right), store_row(p_new + 3 * stride + at, row_of(p.p22, j), left, right);
      }
    }

    float* scratch = (float*)dynamic;
    const float block_error = block_sum(error, scratch, thread);
    float* partial = partial_errors + (long long)pair * num_tiles;
    if (thread == 0) {
      partial[tile] = block_error;
      __threadfence();  // the sum has been written before this tile counts as arrived
      is_last = atomicAdd(arrivals + pair, 1) == num_tiles - 1;
      __threadfence();
    }
    __syncthreads();
    if (!is_last) continue;
    float total = 0;
    for (int i = thread; i < num_tiles; i += THREADS) total += __ldcg(partial + i);  // bypasses L1, which other blocks do not update
    total = block_sum(total, scratch, thread);
    if (thread == 0) {
      arrivals[pair] = 0;
      state[pair] = (flow_half ^ 1 ? FLOW_HALF : 0) | (dual_half ^ 1 ? DUAL_HALF : 0);
      if (total > threshold) lists[next * capacity + atomicAdd(counts + next, 1)] = pair;
    }
  }
}

#endif
#ifndef ONLY_ITERATE

// ---- Results -------------------------------------------------------------------------------------------------------------

// Not isfinite(), which fast math may treat as always true.
__device__ __forceinline__ bool is_finite(float value) { return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u; }

// round((value + offset) * scale), half to even, clipped, plus zero, in float64 as in flowkit.quantise, so that equal flows give equal
// bytes.
__device__ __forceinline__ unsigned char quantised(float value, double offset, double scale, double low, double high, double zero) {
  return (unsigned char)(int)(fmin(fmax(rint((value + offset) * scale), low), high) + zero);
}

// The flow as bytes, plane u and then plane v. Reads 8 bytes per pixel and writes 2, once per pair.
extern "C" __global__ void quantise_flow(int width, int height, int capacity, int stride, double offset, double scale, double low, double high,
                                         double zero, float* flow, const int* state, unsigned char* bytes, unsigned long long* not_finite) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, pair = blockIdx.z;
  if (x >= width || y >= height) return;
  const int pitch = pitch_of(width), at = y * pitch + pitch - width + x;
  const float* newest = flow_of(flow, state[pair] & FLOW_HALF ? 1 : 0, capacity, pair, stride);
  const float u = newest[at], v = newest[stride + at];
  bytes += ((long long)pair * 2 * height + y) * width + x;
  bytes[0] = quantised(u, offset, scale, low, high, zero);
  bytes[(long long)height * width] = quantised(v, offset, scale, low, high, zero);
  if (!is_finite(u) || !is_finite(v)) *(volatile unsigned long long*)not_finite = 1;
}

// The flow as floats, plane u and then plane v, without padding. Reads 8 bytes per pixel and writes 8, once per pair.
extern "C" __global__ void export_flow(int width, int height, int capacity, int stride, float* flow, const int* state, float* planes,
                                       unsigned long long* not_finite) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, pair = blockIdx.z;
  if (x >= width || y >= height) return;
  const int pitch = pitch_of(width), at = y * pitch + pitch - width + x;
  const float* newest = flow_of(flow, state[pair] & FLOW_HALF ? 1 : 0, capacity, pair, stride);
  const float u = newest[at], v = newest[stride + at];
  planes += ((long long)pair * 2 * height + y) * width + x;
  planes[0] = u, planes[(long long)height * width] = v;
  if (!is_finite(u) || !is_finite(v)) *(volatile unsigned long long*)not_finite = 1;
}

#endif

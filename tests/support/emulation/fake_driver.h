// A libcuda.so.1 without a GPU: the few calls of the CUDA driver that flowkit makes through cuda-core, on host memory, with kernels
// run by host_emulation.h. It is strict where a driver is: calls need a context current in their thread, copies must stay inside
// one allocation of the right kind, kernels come from a loaded library by name. Environment variables make it fail:
// FAKE_CUDA_DEVICES (1), FAKE_CUDA_VERSION (13000), FAKE_CUDA_FREE_BYTES (1 GiB), FAKE_CUDA_LIES (0; 1: says that it has more than it gives), FAKE_CUDA_CAPABILITY (90).
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <mutex>
#include <string>

namespace fake_driver {

enum { success = 0, invalid_value = 1, out_of_memory = 2, not_initialized = 3, no_device = 100, invalid_device = 101, invalid_image = 200,
       invalid_context = 201, not_found = 500, not_ready = 600, launch_failed = 719 };

struct Block { int x, y, shared_bytes; };  // for which `iterate` is compiled; zeros: a kernel for any block, without such memory
struct Entry { const char* name; int (*run)(const int*, const int*, int, int, void**); Block block; };
static std::vector<Entry> kernels;
struct Kernel { const char* name; int most_shared_bytes; };  // of a loaded library
static const int shared_bytes_of_a_block = 227 << 10;

static thread_local void* current_context;
static bool initialised;
static char context_token, library_token, stream_token;
static std::map<uintptr_t, size_t> device_memory, pinned_memory;
static size_t used_bytes;

static long long setting(const char* name, long long otherwise) { const char* text = getenv(name); return text ? atoll(text) : otherwise; }

static bool inside(const std::map<uintptr_t, size_t>& memory, uintptr_t at, size_t bytes) {
  auto after = memory.upper_bound(at);
  if (after == memory.begin()) return false;
  auto found = std::prev(after);
  return at + bytes <= found->first + found->second;
}

static void* guarded(size_t bytes) { void* at = aligned_alloc(256, (bytes + 255) / 256 * 256); memset(at, 0xff, bytes); return at; }

static std::recursive_mutex one_at_a_time;  // as a driver, for calls from any thread; memory and the emulation are there once

#define NEEDS_CONTEXT std::lock_guard<std::recursive_mutex> lock(one_at_a_time); if (!current_context) return invalid_context;

static int cuInit(unsigned) { if (!setting("FAKE_CUDA_DEVICES", 1)) return no_device; initialised = true; return success; }
static int cuDriverGetVersion(int* version) { *version = setting("FAKE_CUDA_VERSION", 13000); return success; }
static int cuDeviceGetCount(int* count) { if (!initialised) return not_initialized; *count = setting("FAKE_CUDA_DEVICES", 1); return success; }
static int cuDeviceGet(int* device, int index) { if (index >= setting("FAKE_CUDA_DEVICES", 1)) return invalid_device; *device = index; return success; }
static int cuDeviceGetName(char* name, int bytes, int) { snprintf(name, bytes, "fake GPU"); return success; }
static int cuDeviceGetUuid(char* uuid, int) { memset(uuid, 7, 16); return success; }
static int cuDeviceTotalMem(size_t* bytes, int) { *bytes = (size_t)8 << 30; return success; }
static int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = setting("FAKE_CUDA_CAPABILITY", 90);
  static const std::map<int, int> of_h200 = {{16, 132}, {13, 1980000}, {36, 3201000}, {37, 6144}, {39, 2048}, {81, 228 << 10}, {97, shared_bytes_of_a_block}, {111, 1024}};
  auto found = of_h200.find(attribute);  // SMs, clocks in kHz of SMs and memory, bits of the bus, threads of an SM, shared memory of it, of a block, reserved
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : found == of_h200.end() ? 1 : found->second;
  return success;
}
static int cuDevicePrimaryCtxRetain(void** context, int) { *context = &context_token; return success; }
static int cuDevicePrimaryCtxRelease(int) { return success; }
static int cuCtxSetCurrent(void* context) { current_context = context; return success; }
static int cuCtxGetCurrent(void** context) { *context = current_context; return success; }
static int cuCtxPushCurrent(void* context) { current_context = context; return success; }
static int cuCtxPopCurrent(void** context) { if (context) *context = current_context; return success; }
static int cuCtxGetDevice(int* device) { NEEDS_CONTEXT *device = 0; return success; }
static int cuCtxSynchronize() { NEEDS_CONTEXT return success; }
static int cuCtxGetStreamPriorityRange(int* least, int* greatest) { NEEDS_CONTEXT *least = 0, *greatest = -5; return success; }

static int cuMemGetInfo(size_t* free_bytes, size_t* total) {
  NEEDS_CONTEXT
  *total = setting("FAKE_CUDA_LIES", 0) ? (size_t)1 << 40 : setting("FAKE_CUDA_FREE_BYTES", 1 << 30);
  *free_bytes = *total - std::min(used_bytes, *total);
  return success;
}
static int cuMemAlloc(uintptr_t* at, size_t bytes) {
  NEEDS_CONTEXT
  if (!bytes) return invalid_value;
  if (used_bytes + bytes > (size_t)setting("FAKE_CUDA_FREE_BYTES", 1 << 30)) return out_of_memory;
  *at = (uintptr_t)guarded(bytes), device_memory[*at] = bytes, used_bytes += bytes;
  return success;
}
static int cuMemFree(uintptr_t at) {
  NEEDS_CONTEXT
  if (!device_memory.count(at)) return invalid_value;
  used_bytes -= device_memory[at], device_memory.erase(at), free((void*)at);
  return success;
}
static int cuMemHostAlloc(void** at, size_t bytes, unsigned) {
  NEEDS_CONTEXT
  *at = guarded(bytes), pinned_memory[(uintptr_t)*at] = bytes;
  return success;
}
static int cuMemFreeHost(void* at) {
  NEEDS_CONTEXT
  if (!pinned_memory.count((uintptr_t)at)) return invalid_value;
  pinned_memory.erase((uintptr_t)at), free(at);
  return success;
}
static int cuMemcpyHtoDAsync(uintptr_t target, const void* source, size_t bytes, void*) {
  NEEDS_CONTEXT
  if (!inside(device_memory, target, bytes) || !inside(pinned_memory, (uintptr_t)source, bytes)) return invalid_value;
  memcpy((void*)target, source, bytes);
  return success;
}
static int cuMemcpyDtoHAsync(void* target, uintptr_t source, size_t bytes, void*) {
  NEEDS_CONTEXT
  if (!inside(device_memory, source, bytes) || !inside(pinned_memory, (uintptr_t)target, bytes)) return invalid_value;
  memcpy(target, (const void*)source, bytes);
  return success;
}

static int cuStreamCreateWithPriority(void** stream, unsigned, int) { NEEDS_CONTEXT *stream = &stream_token; return success; }
static int cuStreamDestroy(void*) { return success; }
static int cuStreamGetCtx(void*, void** context) { *context = &context_token; return success; }
static int cuStreamSynchronize(void*) { NEEDS_CONTEXT return success; }
static int cuStreamQuery(void*) { NEEDS_CONTEXT static int asked; return asked++ % 3 ? success : not_ready; }

static int cuEventCreate(void** event, unsigned) { NEEDS_CONTEXT *event = new char; return success; }
static int cuEventRecord(void* event, void*) { NEEDS_CONTEXT return event ? success : invalid_value; }
static int cuEventElapsedTime(float* milliseconds, void* first, void* second) { *milliseconds = 1; return first && second ? success : invalid_value; }

static int cuLibraryLoadData(void** library, const char* code, void*, void*, unsigned, void*, void*, unsigned) {
  if (memcmp(code, "\177ELF", 4) && !strstr(code, ".target")) return invalid_image;  // a cubin or PTX
  *library = &library_token;
  return success;
}
static int cuLibraryUnload(void*) { return success; }
static int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  if (library != &library_token) return invalid_value;
  for (Entry& entry : kernels) if (!strcmp(entry.name, name)) { *kernel = new Kernel{entry.name, (48 << 10) - 16}; return success; }
  return not_found;
}
static int cuKernelGetLibrary(void** library, void*) { *library = &library_token; return success; }
static int cuKernelSetAttribute(int attribute, int value, void* kernel, int) {
  NEEDS_CONTEXT
  if (attribute != 8 || value > shared_bytes_of_a_block - 16) return invalid_value;  // the most dynamic shared memory, beside the static
  ((Kernel*)kernel)->most_shared_bytes = value;
  return success;
}
static int cuKernelGetFunction(void** function, void* kernel) { *function = kernel; return success; }

struct LaunchConfig { unsigned grid[3], block[3], shared_bytes; void* stream; void* attributes; unsigned num_attributes; };
static int cuLaunchKernelEx(const LaunchConfig* config, void* kernel, void** parameters, void**) {
  NEEDS_CONTEXT
  const Kernel& loaded = *(Kernel*)kernel;
  const int grid[3] = {(int)config->grid[0], (int)config->grid[1], (int)config->grid[2]}, block[2] = {(int)config->block[0], (int)config->block[1]};
  const int shared_bytes = config->shared_bytes;
  if (shared_bytes > loaded.most_shared_bytes) return invalid_value;
  for (const Entry& entry : kernels) {
    const bool fits = !entry.block.x || (entry.block.x == block[0] && entry.block.y == block[1]);
    if (!strcmp(entry.name, loaded.name) && fits && entry.block.shared_bytes == shared_bytes)
      return entry.run(grid, block, shared_bytes, 0, parameters) ? launch_failed : success;
  }
  return launch_failed;
}
static int cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream,
                          void** parameters, void** extra) {
  const LaunchConfig config = {{gx, gy, gz}, {bx, by, bz}, shared, stream, nullptr, 0};
  return cuLaunchKernelEx(&config, kernel, parameters, extra);
}

static int cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names = {{1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {200, "CUDA_ERROR_INVALID_IMAGE"},
    {201, "CUDA_ERROR_INVALID_CONTEXT"}, {500, "CUDA_ERROR_NOT_FOUND"}, {719, "CUDA_ERROR_LAUNCH_FAILED"}};
  auto found = names.find(code);
  *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
  return success;
}
static int cuGetErrorString(int code, const char** text) { return cuGetErrorName(code, text); }

}  // namespace fake_driver

extern "C" int cuGetProcAddress_v2(const char* name, void** function, int, unsigned long long, int* status) {
  using namespace fake_driver;
#define CALL(call) {#call, (void*)call}
  static const std::map<std::string, void*> calls = {
      CALL(cuInit), CALL(cuDriverGetVersion), CALL(cuDeviceGetCount), CALL(cuDeviceGet), CALL(cuDeviceGetName), CALL(cuDeviceGetUuid),
      CALL(cuDeviceTotalMem), CALL(cuDeviceGetAttribute), CALL(cuDevicePrimaryCtxRetain), CALL(cuDevicePrimaryCtxRelease),
      CALL(cuCtxSetCurrent), CALL(cuCtxGetCurrent), CALL(cuCtxPushCurrent), CALL(cuCtxPopCurrent), CALL(cuCtxGetDevice),
      CALL(cuCtxSynchronize), CALL(cuCtxGetStreamPriorityRange), CALL(cuMemGetInfo), CALL(cuMemAlloc), CALL(cuMemFree),
      CALL(cuMemHostAlloc), CALL(cuMemFreeHost), CALL(cuMemcpyHtoDAsync), CALL(cuMemcpyDtoHAsync), CALL(cuStreamCreateWithPriority),
      CALL(cuStreamDestroy), CALL(cuStreamGetCtx), CALL(cuStreamSynchronize), CALL(cuStreamQuery), CALL(cuEventCreate), CALL(cuEventRecord), CALL(cuEventElapsedTime), CALL(cuLibraryLoadData),
      CALL(cuLibraryUnload), CALL(cuLibraryGetKernel), CALL(cuKernelGetLibrary), CALL(cuKernelSetAttribute), CALL(cuKernelGetFunction), CALL(cuLaunchKernelEx),
      CALL(cuLaunchKernel), CALL(cuGetErrorName), CALL(cuGetErrorString), {"cuGetProcAddress", (void*)cuGetProcAddress_v2},
      {"cuGetProcAddress_v2", (void*)cuGetProcAddress_v2}};
#undef CALL
  auto found = calls.find(name);
  *function = found == calls.end() ? nullptr : found->second;
  if (status) *status = *function ? 0 : 1;
  return *function ? success : not_found;
}
extern "C" int cuGetProcAddress(const char* name, void** function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

// The ops for ONNX Runtime's CUDA provider: options.register_custom_ops_library(path of this library), in a session on that provider.
//
// One thread per neuron of a row. The work goes to the session's own stream; nothing is allocated, nothing waits for the device, and the
// lengths stay there, so a run of it can be captured into a CUDA graph. Compiled without contraction (-fmad=false) and from the CPU
// kernel's activations, it is meant to give the CPU kernel's bits.
#define INDRNN_ISA gpu

#include <cuda_runtime.h>

#include "column.h"
#include "ort_op.h"

namespace {

constexpr int THREADS = 64;  // of a block: few, so that 65,536 neurons spread evenly over some 100 multiprocessors. Not yet measured.

template <template <class, class, class> class F, class T, bool VARYING = false>
__global__ void __launch_bounds__(THREADS) columns(const Call call) {
    const int64_t n = int64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (n < call.B * call.H) gpu::column<F, T, VARYING>(call, n);
}

template <class T>
void launch(const Call& call, cudaStream_t stream) {
    using Columns = void (*)(Call);
    constexpr Columns kernels[] = {columns<gpu::Relu, T>,    columns<gpu::LeakyRelu, T>, columns<gpu::Tanh, T>,
                                   columns<gpu::Sigmoid, T>, columns<gpu::Identity, T>,  columns<gpu::Piecewise, T>,
                                   columns<gpu::Clip, T, true>};
    const int64_t blocks = (call.B * call.H + THREADS - 1) / THREADS;
    kernels[call.activation]<<<unsigned(blocks), THREADS, 0, stream>>>(call);
}

struct Cuda {
    static constexpr const char* NAME = "CUDAExecutionProvider";

    static void run(const Kernel& kernel, ort::KernelContext* context, const Call& call) {
        if (!(call.B && call.H)) return;
        if (call.B * call.H > int64_t(THREADS) * 2147483647) kernel.refuse("B * H is more than a grid holds");
        void* stream = nullptr;
        kernel.check(kernel.api->KernelContext_GetGPUComputeStream(context, &stream));
        call.dtype ? launch<double>(call, cudaStream_t(stream)) : launch<float>(call, cudaStream_t(stream));
        if (const cudaError_t error = cudaGetLastError()) kernel.refuse(std::string("CUDA: ") + cudaGetErrorString(error));
    }
};

}  // namespace

// What ONNX Runtime calls when the library is registered with a session's options.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
    return register_ops<Cuda>(options, base);
}

// For measuring without ONNX Runtime: one forward run on this stream; arrays are the device's. Returns CUDA's error, 0 for none.
extern "C" __attribute__((visibility("default"))) int indrnn_cuda_run(const Call* call, void* stream) {
    if (!(call->B && call->H)) return 0;
    call->dtype ? launch<double>(*call, cudaStream_t(stream)) : launch<float>(*call, cudaStream_t(stream));
    return int(cudaGetLastError());
}

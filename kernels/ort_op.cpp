// The ops for ONNX Runtime's CPU provider: options.register_custom_ops_library(path of this library).
#include "ort_op.h"

namespace {

// A session may lend many threads, and does not say how many. A piece is worth waking one for from some 40 us of work on, and below
// 1024 columns the walk through memory gets shorter runs (measured at (784, 32, 128), one thread, in times of memcpy: pieces of 128
// columns 1.26, 512 1.09, 1024 1.04, 4096 1.00). Where weights vary three arrays are walked, and one piece of 4096 columns takes 1.00 ms, two
// take 1.27 and four 1.40 on one thread; stored past the caches, which it then is, 1.00, 1.14 and 1.4 of arrays that are in none.
constexpr int64_t PIECE_ELEMENTS = 131072, PIECE_COLUMNS = 1024, VARYING_COLUMNS = 4096;

struct Cpu {
    static constexpr const char* NAME = "CPUExecutionProvider";

    static void run(const Kernel& kernel, ort::KernelContext* context, const Call& call) {
        struct Lent {
            const Kernel& kernel;
            ort::KernelContext* context;
            ort::Status* status;
        } lent{kernel, context, nullptr};
        const int64_t columns = call.B * call.H;
        const int64_t pieces = std::min(call.T * columns / PIECE_ELEMENTS, columns / (call.varying ? VARYING_COLUMNS : PIECE_COLUMNS));
        const int wrong = run_call(
            call, pieces,
            [](void* l, size_t count, Task task, void* argument) {
                auto& lent = *static_cast<Lent*>(l);
                lent.status = lent.kernel.api->KernelContext_ParallelFor(lent.context, task, count, count, argument);
            },
            &lent);
        kernel.check(lent.status);
        if (wrong) kernel.refuse("the kernel refused the call");
    }
};

}  // namespace

// What ONNX Runtime calls when the library is registered with a session's options.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
    return register_ops<Cpu>(options, base);
}

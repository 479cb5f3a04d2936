// Just what ort_op.h and its providers use of ONNX Runtime's C interface, which is versioned and append-only: a table of functions at fixed places.
// ONNX Runtime's wheels hold no headers. tests/kernels/test_ort_header.py compares this with the official one where that is installed.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace ort {

constexpr uint32_t API_VERSION = 17;  // the first with KernelContext_ParallelFor

struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
struct CustomOp;

enum ErrorCode { FAIL = 1, INVALID_ARGUMENT = 2 };
enum ElementType { FLOAT = 1, INT64 = 7, DOUBLE = 11 };
enum Characteristic { REQUIRED = 0, OPTIONAL = 1 };
enum MemoryType { MEMORY_DEFAULT = 0 };

template <int N>
struct Unused {
    void* entries[N];
};

struct Api {
    Status* (*CreateStatus)(ErrorCode, const char* message);
    Unused<25> from_1;
    Status* (*CreateCustomOpDomain)(const char* name, CustomOpDomain**);
    Status* (*CustomOpDomain_Add)(CustomOpDomain*, const CustomOp*);
    Status* (*AddCustomOpDomain)(SessionOptions*, CustomOpDomain*);
    Unused<22> from_29;
    Status* (*GetTensorMutableData)(Value*, void**);
    Unused<9> from_52;
    Status* (*GetDimensionsCount)(const TensorInfo*, size_t*);
    Status* (*GetDimensions)(const TensorInfo*, int64_t*, size_t);
    Unused<2> from_63;
    Status* (*GetTensorTypeAndShape)(const Value*, TensorInfo**);
    Unused<19> from_66;
    Status* (*KernelInfoGetAttribute_float)(const KernelInfo*, const char* name, float*);
    Status* (*KernelInfoGetAttribute_int64)(const KernelInfo*, const char* name, int64_t*);
    Status* (*KernelInfoGetAttribute_string)(const KernelInfo*, const char* name, char*, size_t* size);
    Status* (*KernelContext_GetInputCount)(const KernelContext*, size_t*);
    Unused<1> from_89;
    Status* (*KernelContext_GetInput)(const KernelContext*, size_t, const Value**);
    Status* (*KernelContext_GetOutput)(KernelContext*, size_t, const int64_t* dims, size_t rank, Value**);
    Unused<1> from_92;
    void (*ReleaseStatus)(Status*);
    Unused<5> from_94;
    void (*ReleaseTensorTypeAndShapeInfo)(TensorInfo*);
    Unused<93> from_100;
    Status* (*KernelContext_GetGPUComputeStream)(const KernelContext*, void** stream);
    Unused<80> from_194;
    Status* (*KernelContext_ParallelFor)(const KernelContext*, void (*)(void*, size_t), size_t total, size_t batches, void*);
};

struct ApiBase {
    const Api* (*GetApi)(uint32_t version);  // null for a version that the runtime does not have
    const char* (*GetVersionString)();
};

struct CustomOp {
    uint32_t version;
    void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);
    const char* (*GetName)(const CustomOp*);
    const char* (*GetExecutionProviderType)(const CustomOp*);
    ElementType (*GetInputType)(const CustomOp*, size_t);
    size_t (*GetInputTypeCount)(const CustomOp*);
    ElementType (*GetOutputType)(const CustomOp*, size_t);
    size_t (*GetOutputTypeCount)(const CustomOp*);
    void (*KernelCompute)(void*, KernelContext*);
    void (*KernelDestroy)(void*);
    Characteristic (*GetInputCharacteristic)(const CustomOp*, size_t);
    Characteristic (*GetOutputCharacteristic)(const CustomOp*, size_t);
    MemoryType (*GetInputMemoryType)(const CustomOp*, size_t);
    int (*GetVariadicInputMinArity)(const CustomOp*);
    int (*GetVariadicInputHomogeneity)(const CustomOp*);
    int (*GetVariadicOutputMinArity)(const CustomOp*);
    int (*GetVariadicOutputHomogeneity)(const CustomOp*);
    Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void**);
    Status* (*KernelComputeV2)(void*, KernelContext*);
    Status* (*InferOutputShapeFn)(const CustomOp*, void*);
    int (*GetStartVersion)(const CustomOp*);
    int (*GetEndVersion)(const CustomOp*);
    size_t (*GetMayInplace)(int**, int**);
    void (*ReleaseMayInplace)(int*, int*);
    size_t (*GetAliasMap)(int**, int**);
    void (*ReleaseAliasMap)(int*, int*);
};

}  // namespace ort

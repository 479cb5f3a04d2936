// The ops ai.indrnn::IndRNN and DiagonalRecurrence v1 as ONNX Runtime sees them: names, types, attributes, shapes. A provider P says where they
// run and how: P::NAME, and P::run(kernel, context, call), which throws Failure.
#pragma once

#include <algorithm>
#include <limits>
#include <new>
#include <string>

#include "indrnn_call.h"
#include "ort_api.h"

namespace {

constexpr const char* DOMAIN_NAME = "ai.indrnn";
constexpr const char* ACTIVATIONS[] = {"relu", "leaky_relu", "tanh", "sigmoid", "identity", "piecewise_linear"};

// The two ops: where u is one number per neuron, and where it differs from step to step.
struct Op {
    const char *name, *x, *u;
    size_t x_at, u_at;  // places among the inputs
};
constexpr Op INDRNN{"IndRNN", "X", "U", 0, 1}, DIAGONAL{"DiagonalRecurrence", "B", "A", 1, 0};

// An error on its way back to the runtime.
struct Failure {
    ort::Status* status;
};

struct Kernel {
    const ort::Api* api;
    const Op* op;
    int dtype, activation, reverse;
    float alpha, lo, hi;

    void check(ort::Status* status) const {
        if (status) throw Failure{status};
    }
    [[noreturn]] void refuse(const std::string& message) const {
        throw Failure{api->CreateStatus(ort::INVALID_ARGUMENT, (std::string("ai.indrnn::") + op->name + ": " + message).c_str())};
    }

    // Whether that went well; a status that says otherwise is put aside.
    bool went_well(ort::Status* status) const {
        if (status) api->ReleaseStatus(status);
        return !status;
    }

    // An attribute that has another type is not an absent one: its default would be an answer that nobody asked for.
    void refuse_other_type(const ort::KernelInfo* info, const char* name, const char* type) const {
        float number;
        int64_t integer;
        size_t size = 0;
        if (went_well(api->KernelInfoGetAttribute_float(info, name, &number)) ||
            went_well(api->KernelInfoGetAttribute_int64(info, name, &integer)) ||
            went_well(api->KernelInfoGetAttribute_string(info, name, nullptr, &size)))
            refuse(std::string(name) + ": expected a " + type);
    }

    std::string text(const ort::KernelInfo* info, const char* name, const char* otherwise) const {
        size_t size = 0;
        if (!went_well(api->KernelInfoGetAttribute_string(info, name, nullptr, &size))) {
            refuse_other_type(info, name, "string");
            return otherwise;
        }
        std::string value(size, '\0');
        check(api->KernelInfoGetAttribute_string(info, name, &value[0], &size));
        value.resize(value.find('\0') == std::string::npos ? value.size() : value.find('\0'));
        return value;
    }

    float number(const ort::KernelInfo* info, const char* name, float otherwise) const {
        float value;
        if (went_well(api->KernelInfoGetAttribute_float(info, name, &value))) return value;
        refuse_other_type(info, name, "float");
        return otherwise;
    }

    Kernel(const ort::Api* api, const ort::KernelInfo* info, const Op* op, int dtype) : api(api), op(op), dtype(dtype), activation(CLIP) {
        const std::string direction = text(info, "direction", "forward");
        if (direction != "forward" && direction != "reverse") refuse("expected direction forward or reverse, got " + direction);
        reverse = direction == "reverse";
        if (op == &INDRNN) {
            const std::string f = text(info, "activation", "relu");
            activation = int(std::find(std::begin(ACTIVATIONS), std::end(ACTIVATIONS), f) - std::begin(ACTIVATIONS));
            if (activation == CLIP) refuse("expected activation relu, leaky_relu, tanh, sigmoid, identity or piecewise_linear, got " + f);
        }
        alpha = op == &INDRNN ? number(info, "alpha", 0.01f) : 0;
        constexpr float none = std::numeric_limits<float>::quiet_NaN();
        lo = op == &DIAGONAL ? number(info, "lo", none) : none;
        hi = op == &DIAGONAL ? number(info, "hi", none) : none;
        if (lo > hi) refuse("expected lo at most hi, got " + std::to_string(lo) + " and " + std::to_string(hi));
    }

    // The data of an input of this shape; null for an optional one that is absent.
    const void* input(ort::KernelContext* context, size_t index, const char* name, int rank, int64_t* dims, bool given) const {
        const ort::Value* value = nullptr;
        size_t count = 0;
        check(api->KernelContext_GetInputCount(context, &count));
        if (index < count) check(api->KernelContext_GetInput(context, index, &value));
        if (!value) return nullptr;
        ort::TensorInfo* info = nullptr;
        check(api->GetTensorTypeAndShape(value, &info));
        int64_t found[3] = {0, 0, 0};
        size_t found_rank = 0;
        ort::Status* status = api->GetDimensionsCount(info, &found_rank);
        if (!status && found_rank == size_t(rank)) status = api->GetDimensions(info, found, found_rank);
        api->ReleaseTensorTypeAndShapeInfo(info);
        check(status);
        if (found_rank != size_t(rank)) refuse(std::string(name) + ": expected rank " + std::to_string(rank));
        for (int i = 0; i < rank; ++i) {
            if (given && found[i] != dims[i])
                refuse(std::string(name) + ": expected size " + std::to_string(dims[i]) + " of axis " + std::to_string(i) + ", got " +
                       std::to_string(found[i]));
            dims[i] = found[i];
        }
        void* data = nullptr;
        check(api->GetTensorMutableData(const_cast<ort::Value*>(value), &data));
        return data;
    }

    void* output(ort::KernelContext* context, size_t index, const int64_t* dims, size_t rank) const {
        ort::Value* value = nullptr;
        void* data = nullptr;
        check(api->KernelContext_GetOutput(context, index, dims, rank, &value));
        check(api->GetTensorMutableData(value, &data));
        return data;
    }

    // Inputs that fit each other, and outputs of their shape.
    Call call(ort::KernelContext* context) const {
        int64_t shape[3];
        Call call{};
        call.x = input(context, op->x_at, op->x, 3, shape, false);
        call.T = shape[0], call.B = shape[1], call.H = shape[2];
        const int constant = activation == CLIP ? 0 : 2;  // axes that u has not
        call.u = input(context, op->u_at, op->u, 3 - constant, shape + constant, true);
        call.lens = static_cast<const int64_t*>(input(context, 2, "sequence_lens", 1, shape + 1, true));
        call.h0 = input(context, 3, "initial_h", 2, shape + 1, true);
        call.y = output(context, 0, shape, 3);
        call.y_h = output(context, 1, shape + 1, 2);
        call.dtype = dtype, call.activation = activation, call.reverse = reverse, call.varying = activation == CLIP;
        call.alpha = double(alpha), call.lo = double(lo), call.hi = double(hi);
        return call;
    }
};

template <class Act>
ort::Status* guarded(const ort::Api* api, Act act) {
    try {
        act();
        return nullptr;
    } catch (const Failure& failure) {
        return failure.status;
    } catch (const std::bad_alloc&) {
        return api->CreateStatus(ort::FAIL, "ai.indrnn: out of memory");
    } catch (...) {  // past this point there is C
        return api->CreateStatus(ort::FAIL, "ai.indrnn: an error without a name");
    }
}

template <class P, const Op& OP, int DTYPE>
const ort::CustomOp* op() {
    static const ort::CustomOp made = [] {
        ort::CustomOp op{};
        op.version = ort::API_VERSION;
        op.GetName = [](const ort::CustomOp*) { return OP.name; };
        op.GetExecutionProviderType = [](const ort::CustomOp*) { return P::NAME; };
        op.GetInputType = [](const ort::CustomOp*, size_t i) { return i == 2 ? ort::INT64 : DTYPE ? ort::DOUBLE : ort::FLOAT; };
        op.GetInputTypeCount = [](const ort::CustomOp*) -> size_t { return 4; };
        op.GetOutputType = [](const ort::CustomOp*, size_t) { return DTYPE ? ort::DOUBLE : ort::FLOAT; };
        op.GetOutputTypeCount = [](const ort::CustomOp*) -> size_t { return 2; };
        op.GetInputCharacteristic = [](const ort::CustomOp*, size_t i) { return i < 2 ? ort::REQUIRED : ort::OPTIONAL; };
        op.GetOutputCharacteristic = [](const ort::CustomOp*, size_t) { return ort::REQUIRED; };
        op.GetInputMemoryType = [](const ort::CustomOp*, size_t) { return ort::MEMORY_DEFAULT; };
        op.GetStartVersion = op.GetEndVersion = [](const ort::CustomOp*) { return 1; };
        op.CreateKernelV2 = [](const ort::CustomOp*, const ort::Api* api, const ort::KernelInfo* info, void** kernel) {
            return guarded(api, [&] { *kernel = new Kernel(api, info, &OP, DTYPE); });
        };
        op.KernelComputeV2 = [](void* kernel, ort::KernelContext* context) {
            const Kernel& k = *static_cast<const Kernel*>(kernel);
            return guarded(k.api, [&] { P::run(k, context, k.call(context)); });
        };
        op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
        return op;
    }();
    return &made;
}

// Registers the ops with a session's options, as RegisterCustomOps of a library is asked to.
template <class P>
ort::Status* register_ops(ort::SessionOptions* options, const ort::ApiBase* base) {
    const ort::Api* api = base->GetApi(ort::API_VERSION);
    if (!api) {
        const ort::Api* first = base->GetApi(1);
        const std::string message = "ai.indrnn needs version " + std::to_string(ort::API_VERSION) +
                                    " of ONNX Runtime's C interface, which ONNX Runtime " + base->GetVersionString() + " does not have";
        return first ? first->CreateStatus(ort::FAIL, message.c_str()) : nullptr;
    }
    ort::CustomOpDomain* domain = nullptr;  // never released: sessions made from the options use it for as long as they live
    ort::Status* status = api->CreateCustomOpDomain(DOMAIN_NAME, &domain);
    for (const ort::CustomOp* each : {op<P, INDRNN, 0>(), op<P, INDRNN, 1>(), op<P, DIAGONAL, 0>(), op<P, DIAGONAL, 1>()})
        if (!status) status = api->CustomOpDomain_Add(domain, each);
    if (!status) status = api->AddCustomOpDomain(options, domain);
    return status;
}

}  // namespace

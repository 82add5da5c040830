"""What ONNX Runtime raises where it refuses a model, or what a model is fed."""


def onnx_refusals() -> tuple[type[Exception], ...]:
    """The classes, which share none but Exception. ONNX Runtime is imported here."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    return (
        *(runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf),
        *(runtime.NoSuchFile, runtime.NotImplemented, runtime.RuntimeException),
    )
